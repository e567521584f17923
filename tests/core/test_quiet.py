from __future__ import annotations

import asyncio

from tidemill.core.quiet import QUIET_TURNS, WhenQuiet


async def test_work_starts_when_nothing_moves() -> None:
    started = asyncio.Event()
    when_quiet = WhenQuiet(asyncio.get_running_loop(), lambda: 0, 60.0, started.set)
    when_quiet.hold()
    when_quiet.hold()
    await asyncio.wait_for(started.wait(), 5)


async def test_work_waits_while_requests_move_and_starts_soon_after() -> None:
    turns = 0
    started: list[int] = []
    when_quiet = WhenQuiet(asyncio.get_running_loop(), lambda: min(turns, 50), 60.0, lambda: started.append(turns))
    when_quiet.hold()
    while not started:
        turns += 1
        assert turns < 1000
        await asyncio.sleep(0)
    assert 50 < started[0] <= 50 + QUIET_TURNS + 2


async def test_work_waits_no_longer_than_it_may() -> None:
    moves = 0

    def progress() -> int:
        nonlocal moves
        moves += 1
        return moves

    started = asyncio.Event()
    WhenQuiet(asyncio.get_running_loop(), progress, 0.0, started.set).hold()
    await asyncio.wait_for(started.wait(), 5)
