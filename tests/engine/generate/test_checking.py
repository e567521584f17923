"""What an answer must fit is judged once, but for what took too long."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from tidemill.core.errors import Overloaded, TidemillError, WrongValue
from tidemill.core.generation import Constraint
from tidemill.engine.generate import constraint as constraints
from tidemill.engine.generate.checking import Checking
from tidemill.engine.generate.judge import SLOW_S

REGEX = Constraint("regex", "[ab]+")


class Judge:
    """Says these, one after the other, where it is not `held`; `asked` is what it was asked."""

    def __init__(self, *said: tuple[TidemillError | None, float], held: asyncio.Event | None = None) -> None:
        self.asked: list[Constraint] = []
        self.closed = False
        self._said = iter(said)
        self._held = held
        self._busy = False

    async def ask(self, constraint: Constraint) -> tuple[TidemillError | None, float]:
        assert not self._busy
        self.asked.append(constraint)
        if self._held is None:
            return next(self._said)
        self._busy = True
        try:
            await self._held.wait()
        finally:
            self._busy = False
        return None, math.inf

    async def close(self) -> None:
        self.closed = True


async def test_what_was_judged_is_not_asked_again() -> None:
    judge = Judge((None, math.inf))
    made = Checking([judge], 2)
    for _ in range(3):
        await made.check(REGEX)
    assert judge.asked == [REGEX]


async def test_what_took_too_long_is_refused_at_once_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = constraints.refused("it takes more than 1 s")
    now = time.monotonic()
    judge = Judge((slow, now + SLOW_S), (None, math.inf))
    made = Checking([judge], 2)
    for _ in range(2):
        with pytest.raises(WrongValue, match="takes more than"):
            await made.check(REGEX)
    assert judge.asked == [REGEX]
    monkeypatch.setattr(time, "monotonic", lambda: now + SLOW_S + 1)
    await made.check(REGEX)
    assert judge.asked == [REGEX, REGEX]


async def test_no_more_wait_than_may_but_for_those_that_want_the_same() -> None:
    held = asyncio.Event()
    judge = Judge(held=held)
    made = Checking([judge], 2)
    other = Constraint("regex", "[cd]+")
    waiting = [asyncio.create_task(made.check(each)) for each in (REGEX, REGEX, other, REGEX)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="constraint-waiting-max"):
        await made.check(Constraint("regex", "[ef]+"))
    held.set()
    await asyncio.gather(*waiting)
    assert judge.asked == [REGEX, other]
    await made.check(Constraint("regex", "[ef]+"))


async def test_several_are_judged_at_once_by_no_more_than_are_needed() -> None:
    held = asyncio.Event()
    judges = [Judge(held=held) for _ in range(3)]
    made = Checking(judges, 16)
    every = [Constraint("regex", f"[{letter}x]+") for letter in "abcde"]

    def counts() -> list[int]:
        return sorted(len(judge.asked) for judge in judges)

    held.set()
    for each in every[:2]:
        await made.check(each)
    assert counts() == [0, 0, 2]
    held.clear()
    asking = [asyncio.create_task(made.check(each)) for each in (*every[2:], every[2], REGEX)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert counts() == [1, 1, 3]
    asking[0].cancel()
    await asyncio.gather(asking[0], return_exceptions=True)
    held.set()
    await asyncio.gather(*asking[1:])
    assert sum(counts()) == 2 + 3 + 2  # what was given up is asked again by the other who wants it, and the last
    await made.close()
    assert all(judge.closed for judge in judges)
