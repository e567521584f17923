from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.account.group_commit import GroupCommit, Row
from tidemill.core.errors import LedgerUnavailable
from tidemill.store import database, ledger

WAIT_S_MAX = 10.0


class Disk:
    """Keeps what is booked; fails while `broken`, waits while `gate` is clear."""

    def __init__(self) -> None:
        self.groups: list[list[Row]] = []
        self.broken: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group]

    def __call__(self, rows: Sequence[Row]) -> None:
        self.entered.set()
        assert self.gate.wait(WAIT_S_MAX)
        if self.broken is not None:
            raise self.broken
        self.groups.append(list(rows))


@asynccontextmanager
async def committing(disk: Disk, queue_max: int = 1000) -> AsyncIterator[GroupCommit]:
    commits = GroupCommit(disk, queue_max)
    try:
        yield commits
    finally:
        disk.gate.set()
        await asyncio.wait_for(commits.close(), WAIT_S_MAX)


async def hold(disk: Disk, commits: GroupCommit) -> asyncio.Future[None]:
    """A row that the disk works on until its gate opens."""
    disk.gate.clear()
    held = commits.write(("held",))
    assert await asyncio.to_thread(disk.entered.wait, WAIT_S_MAX)
    return held


async def done(*futures: asyncio.Future[None]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), WAIT_S_MAX)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["good", "broken", "cancel"])), max_size=8))
def test_row_is_durable_when_its_future_is_done_and_only_then(bursts: list[tuple[int, str]]) -> None:
    """Goal: done without error if and only if booked, once, in order. Method: bursts, on disks that fail between."""

    async def play() -> None:
        disk = Disk()
        wanted: list[Row] = []
        async with committing(disk) as commits:
            for number, (count, kind) in enumerate(bursts):
                disk.broken = OSError("no space") if kind == "broken" else None
                rows: list[Row] = [(number, place) for place in range(count)]
                futures = [commits.write(row) for row in rows]
                if kind == "cancel":
                    futures[0].cancel()
                    rows.append(("last",))  # somebody stays, so that the disk is done before it breaks
                    futures.append(commits.write(rows[-1]))
                found = await done(*futures)
                if kind == "broken":
                    assert {type(each) for each in found} == {LedgerUnavailable}
                else:
                    wanted += rows
                    if kind == "good":
                        assert found == [None] * count
                        assert disk.rows == wanted
        assert disk.rows == wanted

    asyncio.run(play())


async def test_row_is_seen_by_another_connection_when_its_future_is_done(tmp_path: Path) -> None:
    with closing(database.connect(tmp_path)) as writer, closing(database.connect(tmp_path)) as reader:
        commits = GroupCommit(lambda rows: ledger.book(writer, rows), 100)
        for number in range(5):
            await commits.write((f"c{number}", "t", "k", "m", 1, "r", 1, 1, 3, 0, 0, 0, 0))
            assert ledger.total(reader) == (number + 1, 3 * (number + 1))
        await commits.close()


async def test_rows_that_come_while_the_disk_works_are_one_group() -> None:
    disk = Disk()
    async with committing(disk) as commits:
        held = await hold(disk, commits)
        later = [commits.write((number,)) for number in range(50)]
        disk.gate.set()
        await done(held, *later)
        assert [len(group) for group in disk.groups] == [1, 50]
        assert disk.rows[1:] == [(number,) for number in range(50)]


async def test_failing_disk_is_told_to_those_of_its_group_alone() -> None:
    disk = Disk()
    async with committing(disk) as commits:
        held = await hold(disk, commits)
        disk.broken = sqlite3.OperationalError("disk I/O error")
        lost = [commits.write((number,)) for number in range(3)]
        disk.gate.set()
        found = await done(held, *lost)
        assert {type(each) for each in found} == {LedgerUnavailable}
        assert disk.rows == []
        disk.broken = None
        assert await done(commits.write(("again",))) == [None]
        assert disk.rows == [("again",)]


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), sqlite3.InterfaceError("bad row"), OverflowError()])
async def test_whatever_the_disk_raises_the_next_group_is_written(error: Exception) -> None:
    disk = Disk()
    async with committing(disk) as commits:
        disk.broken = error
        assert [type(each) for each in await done(commits.write((1,)))] == [LedgerUnavailable]
        disk.broken = None
        assert await done(commits.write((2,))) == [None]


async def test_queue_is_bounded_and_open_again_when_the_disk_has_caught_up() -> None:
    disk = Disk()
    async with committing(disk, queue_max=3) as commits:
        held = await hold(disk, commits)
        waiting = [commits.write((number,)) for number in range(3)]
        with pytest.raises(LedgerUnavailable, match="3 charges wait") as caught:
            commits.write(("one more",))
        assert caught.value.retry_after_s
        disk.gate.set()
        assert await done(held, *waiting) == [None] * 4
        await done(commits.write(("now",)))
        assert disk.rows[1:] == [(0,), (1,), (2,), ("now",)]


async def test_close_writes_what_waits_and_refuses_what_comes() -> None:
    disk = Disk()
    commits = GroupCommit(disk, 100)
    held = await hold(disk, commits)
    waiting = [commits.write((number,)) for number in range(3)]
    closing = asyncio.create_task(commits.close())
    await asyncio.sleep(0)
    with pytest.raises(LedgerUnavailable):
        commits.write(("late",))
    disk.gate.set()
    await asyncio.wait_for(closing, WAIT_S_MAX)
    assert await done(held, *waiting) == [None] * 4
    assert len(disk.rows) == 4


async def test_close_writes_what_was_asked_for_in_the_same_breath() -> None:
    disk = Disk()
    commits = GroupCommit(disk, 100)
    future = commits.write(("now",))
    await asyncio.wait_for(commits.close(), WAIT_S_MAX)
    assert await done(future) == [None]
    assert disk.rows == [("now",)]


async def test_close_on_a_broken_disk_ends_and_tells() -> None:
    disk = Disk()
    disk.broken = OSError("no space")
    commits = GroupCommit(disk, 100)
    future = commits.write((1,))
    await asyncio.wait_for(commits.close(), WAIT_S_MAX)
    assert [type(each) for each in await done(future)] == [LedgerUnavailable]


async def test_charge_of_a_waiter_who_left_stands() -> None:
    disk = Disk()
    async with committing(disk) as commits:
        held = await hold(disk, commits)
        left, stayed = commits.write(("left",)), commits.write(("stayed",))
        left.cancel()
        held.cancel()
        disk.gate.set()
        assert await done(stayed) == [None]
        assert disk.rows == [("held",), ("left",), ("stayed",)]


async def test_groups_and_rows_are_counted() -> None:
    disk = Disk()
    async with committing(disk) as commits:
        held = await hold(disk, commits)
        later = [commits.write((number,)) for number in range(4)]
        disk.gate.set()
        await done(held, *later)
        assert (commits.group_count, commits.row_count) == (2, 5)


async def test_rows_that_were_not_written_are_not_counted() -> None:
    disk = Disk()
    async with committing(disk) as commits:
        disk.broken = OSError("no space")
        await done(commits.write((1,)))
        assert commits.row_count == 0
