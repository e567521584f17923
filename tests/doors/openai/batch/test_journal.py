"""What a batch has answered survives whatever happens to its process, and a torn end is no answer."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import DiskFull, Overloaded
from tidemill.doors.openai.batch import journal as module
from tidemill.doors.openai.batch import line
from tidemill.doors.openai.batch.journal import Journal


async def write(folder: Path, numbers: range) -> None:
    journal = Journal(folder / "output", folder / "errors")
    journal.recover()
    await asyncio.gather(
        *(journal.append(True, line.answered("batch_b", number, f"q{number}", b"{}")) for number in numbers),
        journal.append(False, line.refused("batch_b", 100, None, Overloaded("busy"))),
        journal.append(False, line.given_up("batch_b", 101, "late")),
    )
    await journal.close()


@given(cut=st.integers(0, 400))
def test_a_torn_end_is_cut_off_and_the_rest_stands(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    asyncio.run(write(folder, range(1, 4)))
    output = folder / "output"
    content = output.read_bytes()[: max(0, len(output.read_bytes()) - cut)]
    output.write_bytes(content)
    whole = content.count(b"\n")
    journal = Journal(output, folder / "errors")
    done = journal.recover()
    asyncio.run(journal.close())
    assert (done.completed, done.failed, done.expired) == (whole, 2, 1)
    assert {100, 101} <= done.numbers
    assert len(done.numbers) == whole + 2
    assert output.read_bytes() == content[: content.rfind(b"\n") + 1]


async def test_a_full_disk_is_told_to_every_line_that_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "output", tmp_path / "errors")
    journal.recover()

    def full(file: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_all", full)
        found = await asyncio.gather(*(journal.append(True, b"{}") for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [DiskFull] * 3
    assert (tmp_path / "output").read_bytes() == b""
    await journal.append(True, line.answered("batch_b", 1, "q", b"{}"))
    await journal.close()
    assert (tmp_path / "output").read_bytes().count(b"\n") == 1
