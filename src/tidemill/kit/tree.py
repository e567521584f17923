"""Files on disk that are whole or not there: placed by one rename, mended one by one; any process that installs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from tidemill.core.errors import FetchFailed

LOCK_WAIT_S_MAX = 600.0
_LOCK_POLL_S = 0.1
_CHUNK_BYTES = 2**20


class FileRecord(msgspec.Struct, frozen=True):
    """What a file must be."""

    sha256: str
    size_bytes: int


def record(data: bytes) -> FileRecord:
    return FileRecord(hashlib.sha256(data).hexdigest(), len(data))


def file_sha256(path: Path) -> str | None:
    """Digest of the file at `path`; None when there is none."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def intact(root: Path, records: Mapping[str, FileRecord]) -> bool:
    """Whether every file is there in its full size. Sizes, not digests: an answer in microseconds."""
    return all(_size(root / name) == wanted.size_bytes for name, wanted in records.items())


def settle(root: Path, files: Mapping[str, bytes]) -> None:
    """Make `root` hold `files` (relative POSIX paths), whatever else it holds.

    A folder that is missing appears whole or not at all; in one that is there, each wrong file is replaced by a rename.
    One process at a time: hold a `lock`. Raises `FetchFailed` for a path that leaves `root`, and writes nothing then.
    """
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or "\0" in name:
            raise FetchFailed(f"refusing to write {name!r}: it lies outside {root}")
    _settle(root, files)


def _settle(root: Path, files: Mapping[str, bytes]) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    for stale in root.parent.glob(f".{root.name}.new-*"):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    fresh = root.with_name(f".{root.name}.new-{os.getpid()}")
    if not root.is_dir():
        for name, data in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        fresh.rename(root)
        return
    here = {name: data for name, data in files.items() if "/" not in name}
    folders: dict[str, dict[str, bytes]] = {}
    for name in files.keys() - here.keys():
        first, _, rest = name.partition("/")
        folders.setdefault(first, {})[rest] = files[name]
    for folder, inside in folders.items():
        _settle(root / folder, inside)
    # Last, because a record of what lies below is among these: it must never tell of files that are not there yet.
    for name, data in here.items():
        if not _holds(root / name, data):
            fresh.write_bytes(data)
            fresh.replace(root / name)


def _holds(path: Path, data: bytes) -> bool:
    return _size(path) == len(data) and path.read_bytes() == data


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


@contextmanager
def lock(
    path: Path, wait_s_max: float = LOCK_WAIT_S_MAX, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold `path` against other processes; a killed one lets go by itself. Raises `FetchFailed` after `wait_s_max`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + wait_s_max
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise FetchFailed(
                        f"another process has held {path} for {wait_s_max:g} s; wait for it or end it, then try again"
                    ) from None
                pause(_LOCK_POLL_S)
            else:
                break
        yield
