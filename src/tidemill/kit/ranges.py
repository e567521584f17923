"""A file behind HTTP that is read where it is wanted, so that a few members of a huge wheel cost a few requests.

Runs in any process that fetches.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from tidemill.core.errors import FetchFailed
from tidemill.kit.fetch import TryAgain, refuse

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ATTEMPTS_MAX = 4
BUFFER_BYTES = 32 * 1024
"""Read at once: most members that are wanted are smaller."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


class NoRange(Exception):
    """The server gives this file only whole."""


class RangeFile(io.RawIOBase):
    """The bytes at `url`, read-only and seekable; `open_ranges` wraps it in a buffer.

    Opening asks once for the size and raises `NoRange`; a read raises `FetchFailed` after `ATTEMPTS_MAX` attempts. The
    client belongs to the caller.
    """

    def __init__(self, client: httpx.Client, url: str, pause: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        self._client, self._url, self._pause = client, url, pause
        self._at = 0
        self.size = 0
        self._read(0, 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise OSError(f"cannot seek to {at}")
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(0, self.size - self._at))
        if count:
            view[:count] = self._read(self._at, count)
        self._at += count
        return count

    def _read(self, start: int, count: int) -> bytes:
        trouble = ""
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                self._pause(2.0 ** (attempt - 1))
            try:
                return self._ask(start, count)
            except (TryAgain, httpx.TransportError) as error:
                trouble = str(error) or type(error).__name__
            except httpx.HTTPError as error:
                raise FetchFailed(f"reading {self._url} failed: {error}") from error
        raise FetchFailed(f"reading {self._url} failed {ATTEMPTS_MAX} times, last: {trouble}; check the network")

    def _ask(self, start: int, count: int) -> bytes:
        span = f"bytes={start}-{start + count - 1}"
        with self._client.stream("GET", self._url, headers={"Range": span}) as response:
            refuse(response, self._url)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                raise NoRange(self._url)
            told = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if told is None or (int(told[1]), int(told[2])) != (start, start + count - 1):
                raise NoRange(self._url)
            data = b"".join(response.iter_raw())
        if len(data) != count:
            raise TryAgain(f"{len(data)} bytes came where {count} were asked for")
        self.size = int(told[3])
        return data


def open_ranges(client: httpx.Client, url: str) -> io.BufferedReader:
    """`url` as a file for `zipfile.ZipFile`. Raises `NoRange`, `FetchFailed`."""
    return io.BufferedReader(RangeFile(client, url), BUFFER_BYTES)
