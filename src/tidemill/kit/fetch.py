"""One file of known digest from a URL into the cache: resumed, retried, checked; any process, several at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import httpx

from tidemill.core.errors import FetchFailed
from tidemill.core.places import cache_dir
from tidemill.kit.network import Network
from tidemill.kit.tree import file_sha256, lock

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""(label, bytes done, bytes in all when known)"""

__all__ = ["Progress", "TryAgain", "cache_dir", "fetch", "refuse", "silent"]

ATTEMPTS_MAX = 5
_PAUSE_S_MAX = 8.0
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class TryAgain(Exception):
    """What went wrong may not go wrong again."""


def silent(label: str, done: int, total: int | None) -> None:
    """The `Progress` that shows nothing."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str,
    size_bytes: int,
    label: str,
    progress: Progress = silent,
    network: Network | None = None,
    attempts_max: int = ATTEMPTS_MAX,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Put the file at `url` under `target`, unless it is there already; returns `target`.

    What has come stays in `target.part` when the connection or this process ends, and the next attempt goes on from
    there. Raises `FetchFailed`: after `attempts_max` attempts, at once for an answer that waiting does not mend, and
    for a file of another digest, which is deleted.
    """
    with lock(target.with_name(target.name + ".lock")):
        if file_sha256(target) == sha256:
            return target
        part = target.with_name(target.name + ".part")
        trouble = ""
        with (network or Network()).client(url) as client:
            for attempt in range(attempts_max):
                if attempt:
                    pause(min(2.0 ** (attempt - 1), _PAUSE_S_MAX))
                try:
                    resumed = _receive(client, url, part, size_bytes, label=label, progress=progress)
                except (TryAgain, httpx.TransportError) as error:
                    trouble = str(error) or type(error).__name__
                    continue
                except httpx.HTTPError as error:
                    raise FetchFailed(f"fetching {label} from {url} failed: {error}") from error
                got = file_sha256(part)
                if got == sha256:
                    part.replace(target)
                    return target
                part.unlink(missing_ok=True)
                trouble = f"what came from {url} has the sha256 {got}, expected {sha256}"
                if not resumed:
                    raise FetchFailed(f"{label} is refused and deleted: {trouble}; is the mirror sound?")
        raise FetchFailed(
            f"fetching {label} failed {attempts_max} times, last: {trouble}; check the network and try again"
            " (what has come is kept)"
        )


def _receive(client: httpx.Client, url: str, part: Path, size_bytes: int, *, label: str, progress: Progress) -> bool:
    """One attempt to complete `part`; returns whether it went on from an earlier one."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size_bytes:
        # Complete, or of something else: the digest tells.
        return True
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        refuse(response, label)
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise TryAgain(f"the server answered bytes from {have} with {response.headers.get('Content-Range')!r}")
        done = have if resumed else 0
        progress(f"fetching {label}", done, size_bytes)
        with part.open("ab" if resumed else "wb") as file:
            # More than was promised is another file; its digest will say so without filling the disk.
            for chunk in response.iter_raw():
                file.write(chunk)
                done += len(chunk)
                progress(f"fetching {label}", done, size_bytes)
                if done > size_bytes:
                    break
        if done < size_bytes and "Content-Length" not in response.headers:
            raise TryAgain(f"the answer ended after {done} of {size_bytes} bytes")
    return resumed


def refuse(response: httpx.Response, label: str) -> None:
    """Raises `TryAgain` or `FetchFailed` unless the server gives what was asked."""
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        return
    if status in _RETRIED_STATUS or status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise TryAgain(f"{response.url} answered {status} {response.reason_phrase}")
    hint = ""
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.PROXY_AUTHENTICATION_REQUIRED):
        hint = "; it wants a password: write it into pip's index URL or ~/.netrc"
    raise FetchFailed(f"fetching {label}: {response.url} answered {status} {response.reason_phrase}{hint}")
