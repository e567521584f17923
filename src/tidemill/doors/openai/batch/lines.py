"""Where the lines of a batch's input stand, and their bytes; blocks, called from threads of the owner process."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from tidemill.doors.openai.batch.line import custom_id_of

READ_BYTES = 2**20


class TooManyLines(ValueError):
    """More than are taken."""


class Lines:
    """The lines that are not blank, numbered from 1 as an editor numbers them. Life: built, `read`, `close`.

    `numbers` are theirs in order; `twice` are those whose custom_id an earlier line has.
    """

    def __init__(self, path: Path, line_bytes_max: int, lines_max: int) -> None:
        """Raises `OSError`, `TooManyLines`."""
        self._line_bytes_max = line_bytes_max
        self._at: dict[int, tuple[int, int]] = {}
        self.twice: set[int] = set()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._scan(path, lines_max)
        except BaseException:
            self.close()
            raise

    def _scan(self, path: Path, lines_max: int) -> None:
        starts = array("Q", (0,))
        offset = 0
        with path.open("rb") as file:
            while part := file.read(READ_BYTES):
                at = part.find(b"\n")
                while at >= 0:
                    starts.append(offset + at + 1)
                    if len(starts) > 4 * lines_max + 4:
                        raise TooManyLines
                    at = part.find(b"\n", at + 1)
                offset += len(part)
        starts.append(offset)
        seen: set[str] = set()
        for index in range(len(starts) - 1):
            start, size = starts[index], starts[index + 1] - starts[index]
            raw = os.pread(self._file, min(size, self._line_bytes_max + 1), start)
            if not raw.strip():
                continue
            number = index + 1
            self._at[number] = (start, size)
            if len(self._at) > lines_max:
                raise TooManyLines
            custom_id = custom_id_of(raw)
            if custom_id is not None and custom_id in seen:
                self.twice.add(number)
            elif custom_id is not None:
                seen.add(custom_id)

    @property
    def numbers(self) -> list[int]:
        return list(self._at)

    def read(self, number: int) -> bytes | None:
        """The line; None where it is longer than is taken."""
        start, size = self._at[number]
        if size > self._line_bytes_max:
            return None
        return os.pread(self._file, size, start)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
