"""Where files lie and batches are remembered: the data folder and the database, behind one thread of their own; in the
owner process.

A file's name on disk is its id, which is made here: nothing that a caller says becomes a path. Life: built, `open`,
used from the loop, `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from tidemill.core.errors import DiskFull, InvalidSetting, LedgerUnavailable
from tidemill.doors.way import fresh_request_id
from tidemill.store import batches, database

P = ParamSpec("P")
T = TypeVar("T")
FOLDER = "files"
PART = ".part"


class Shelf:
    """`folder` holds the files."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.folder = data_dir / FOLDER
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shelf")
        self._connection: database.Connection | None = None
        self._lock = -1
        self._uploads: set[str] = set()

    async def open(self) -> None:
        """Raises `InvalidSetting` for a folder that cannot be used."""
        await self._blocking(self._open)

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise InvalidSetting(f"{self.folder} cannot be used: {error}; choose another --data-dir") from error
        self._connection = database.connect(self._data_dir)

    async def own(self) -> bool:
        """Whether this process runs the batches of the folder: one at a time does, from here to its end."""
        return await self._blocking(self._own)

    def _own(self) -> bool:
        if self._lock < 0:
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    async def sweep(self, keep: set[str]) -> None:
        """Remove what a process that was killed left of uploads; `keep` are ids that the database does not know."""

        def swept(connection: database.Connection) -> None:
            known = batches.file_ids(connection) | keep | {"lock"}
            for path in self.folder.iterdir():
                if path.name not in known and path.name.removesuffix(PART) not in self._uploads:
                    path.unlink(missing_ok=True)

        await self.ask(swept)

    async def ask(self, work: Callable[Concatenate[database.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have `work` done with the connection. Raises `LedgerUnavailable` when the database stays locked."""

        def worked() -> T:
            assert self._connection is not None  # noqa: S101 - opened before it is asked
            return work(self._connection, *args, **kwargs)

        try:
            return await self._blocking(worked)
        except database.DatabaseError as error:
            raise LedgerUnavailable(f"the database cannot be used now: {error}", retry_after_s=1.0) from error

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def path(self, file_id: str) -> Path:
        """`file_id` is one of ours, out of the database."""
        return self.folder / file_id

    @contextlib.asynccontextmanager
    async def upload(self) -> AsyncIterator[Upload]:
        """A file that comes; gone again after the `async with` where it was not kept."""
        upload = Upload(self.folder, f"file-{fresh_request_id()}")
        self._uploads.add(upload.id)
        try:
            yield upload
        finally:
            self._uploads.discard(upload.id)
            await asyncio.to_thread(upload.close)

    async def remove(self, file_id: str) -> None:
        await self._blocking(lambda: self.path(file_id).unlink(missing_ok=True))

    async def close(self) -> None:
        def closed() -> None:
            if self._connection is not None:
                self._connection.close()
            if self._lock >= 0:
                os.close(self._lock)

        await self._blocking(closed)
        self._thread.shutdown()


class Upload:
    """A file that comes: under another name until it is whole. Life: `write`, `keep`, `close`; what was not kept is
    gone after that. Blocks; called from threads."""

    def __init__(self, folder: Path, file_id: str) -> None:
        self.id = file_id
        self.size_bytes = 0
        self._whole = folder / file_id
        self._part = folder / (file_id + PART)
        self._kept = False
        self._file = -1

    def write(self, data: bytes) -> None:
        """Raises `DiskFull`."""
        try:
            if self._file < 0:
                self._file = os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            write_all(self._file, data)
        except OSError as error:
            raise DiskFull(f"the file cannot be written: {error.strerror}") from error
        self.size_bytes += len(data)

    def keep(self) -> None:
        """Make it durable under its id. Raises `DiskFull`."""
        self.write(b"")
        try:
            os.fsync(self._file)
            self._part.rename(self._whole)
            sync_folder(self._whole.parent)
        except OSError as error:
            raise DiskFull(f"the file cannot be written: {error.strerror}") from error
        self._kept = True

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if not self._kept:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)


def write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_folder(folder: Path) -> None:
    """A name in a folder is durable once the folder is."""
    found = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(found)
    finally:
        os.close(found)
