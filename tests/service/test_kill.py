"""`kill -9` under load: what was answered was booked, once.

Each request carries an id of its own. The server is killed in the middle, as a power cut for processes would, and its
database is then held against what clients saw: every 200 has exactly one row, and no id has two.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from serving import Server
from tidemill.client import load
from tidemill.client.load import Answer, Retries

IN_FLIGHT = 32
NO_RETRY = Retries(attempts_max=0, delay_s=0.001)


async def _killed_under_load(server: Server, round_name: str, after_answers: int) -> set[str]:
    """The ids answered with 200 before the server died."""
    answered: set[str] = set()
    enough = asyncio.Event()

    def take(answer: Answer) -> None:
        if answer.status == 200:
            answered.add(f"{round_name}-{answer.number}")
            if len(answered) >= after_answers:
                enough.set()

    running = asyncio.create_task(
        load.run(
            f"{server.url}/v1/models/half:predict",
            b'{"instances":[1.0]}',
            in_flight=IN_FLIGHT,
            seconds=60,
            headers_of=lambda number: {"x-request-id": f"{round_name}-{number}"},
            on_answer=take,
            retries=NO_RETRY,
        )
    )
    async with asyncio.timeout(60):
        await enough.wait()
        server.kill()
        result = await running
    assert result.ok == len(answered)
    assert result.lost > 0, "it was not killed under load"
    return answered


def _held_against_the_books(data_dir: Path, answered: set[str]) -> int:
    """How many requests are booked."""
    with closing(sqlite3.connect(data_dir / "tidemill.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        booked = Counter(row[0] for row in connection.execute("SELECT request_id FROM charges"))
    assert answered - booked.keys() == set(), "answered and not booked"
    assert [name for name, count in booked.items() if count > 1] == [], "booked twice"
    return len(booked)


async def _rounds(repository: Path, data_dir: Path, count: int) -> None:
    answered: set[str] = set()
    for number in range(count):
        with Server(repository, data_dir, "half", "--no-auth") as server:
            answered |= await _killed_under_load(server, f"round{number}", random.randint(200, 2000))  # noqa: S311
        booked = _held_against_the_books(data_dir, answered)
        print(f"killed {number + 1} times: {len(answered)} answered, {booked} booked, none of them twice")


@pytest.mark.slow
async def test_killed_three_times_everything_answered_is_booked_once(repository: Path, tmp_path: Path) -> None:
    await _rounds(repository, tmp_path, 3)


@pytest.mark.soak
async def test_killed_ten_times_everything_answered_is_booked_once(repository: Path, tmp_path: Path) -> None:
    await _rounds(repository, tmp_path, 10)
