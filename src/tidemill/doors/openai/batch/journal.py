"""The answers of a batch as they come, each durable before its line counts as done; on the owner's loop and threads.

The two files that a batch gives back, its answers and its errors, are written from its beginning, a line at a time:
what is in them is what has been done. A process that is killed leaves at most a torn end, which is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from tidemill.core.errors import DiskFull
from tidemill.doors.openai.batch.line import EXPIRED, number_of
from tidemill.doors.openai.batch.shelf import sync_folder, write_all


@dataclass(slots=True)
class Done:
    """What the files hold: the numbers of lines, and how many were answered, failed, and given up."""

    numbers: set[int] = field(default_factory=set)
    completed: int = 0
    failed: int = 0
    expired: int = 0


class _Group:
    """Lines that are written together: answers and errors."""

    def __init__(self) -> None:
        self.lines: tuple[list[bytes], list[bytes]] = ([], [])
        self.written: asyncio.Task[None] | None = None


class Journal:
    """Life: `recover` on a thread, `append` any number of times, `close`."""

    def __init__(self, output: Path, errors: Path) -> None:
        self._paths = (output, errors)
        self._files: list[int] = []
        self._gathering: _Group | None = None
        self._last: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def recover(self) -> Done:
        """Open both files, and tell what they hold. Blocks. Raises `DiskFull`."""
        done = Done()
        try:
            for path in self._paths:
                file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
                self._files.append(file)
                os.ftruncate(file, _whole_bytes(path, done, answered=path is self._paths[0]))
            sync_folder(self._paths[0].parent)
        except OSError as error:
            self._let_go()
            raise DiskFull(f"the answers of the batch cannot be written: {error.strerror}") from error
        return done

    async def append(self, answered: bool, line: bytes) -> None:
        """Return when `line` is durable. Those that wait together share one write. Raises `DiskFull`."""
        group = self._gathering
        if group is None or group.written is None:
            group = self._gathering = _Group()
            group.written = self._last = asyncio.create_task(self._flush(group))
        group.lines[0 if answered else 1].append(line + b"\n")
        await asyncio.shield(group.written)  # whoever is cancelled leaves the others' lines alone

    async def _flush(self, group: _Group) -> None:
        async with self._turn:
            self._gathering = None
            await asyncio.to_thread(self._write, group.lines)

    def _write(self, pending: tuple[list[bytes], list[bytes]]) -> None:
        for file, lines in zip(self._files, pending, strict=True):
            if not lines:
                continue
            size_bytes = os.fstat(file).st_size
            try:
                write_all(file, b"".join(lines))
                os.fsync(file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size_bytes)
                raise DiskFull(f"the answers of the batch cannot be written: {error.strerror}") from error

    async def close(self) -> None:
        """Let what is being written be written, and close the files."""
        if self._last is not None:
            await asyncio.gather(self._last, return_exceptions=True)
        self._let_go()

    def _let_go(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []


def _whole_bytes(path: Path, done: Done, answered: bool) -> int:
    """How much of the file is whole lines, counted into `done`."""
    whole = 0
    with path.open("rb") as file:
        for line in file:
            try:
                told = orjson.loads(line) if line.endswith(b"\n") else None
            except orjson.JSONDecodeError:
                told = None
            if told is None:
                break
            whole += len(line)
            done.numbers.add(number_of(told["id"]))
            if answered:
                done.completed += 1
            else:
                done.failed += 1
                done.expired += (told["error"] or {}).get("code") == EXPIRED
    return whole
