"""What an answer must fit is judged once, but for what took too long."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from tidemill.core.errors import Overloaded, TidemillError, WrongValue
from tidemill.core.generation import Constraint
from tidemill.engine.generate import constraint as constraints
from tidemill.engine.generate.checking import SLOW_S, Checking

REGEX = Constraint("regex", "[ab]+")


def checking(monkeypatch: pytest.MonkeyPatch, *said: tuple[TidemillError | None, float]) -> tuple[Checking, list[Any]]:
    """One whose compiler says these, one after the other, and what it was asked."""

    def never(listener: Any) -> Any:
        raise AssertionError

    made, asked, answers = Checking(never, 1.0, 2), [], iter(said)

    async def ask(constraint: Constraint) -> tuple[TidemillError | None, float]:
        asked.append(constraint)
        return next(answers)

    monkeypatch.setattr(made, "_ask", ask)
    return made, asked


async def test_what_was_judged_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = checking(monkeypatch, (None, math.inf))
    for _ in range(3):
        await made.check(REGEX)
    assert asked == [REGEX]


async def test_what_took_too_long_is_refused_at_once_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = constraints.refused("it takes more than 1 s")
    now = time.monotonic()
    made, asked = checking(monkeypatch, (slow, now + SLOW_S), (None, math.inf))
    for _ in range(2):
        with pytest.raises(WrongValue, match="takes more than"):
            await made.check(REGEX)
    assert asked == [REGEX]
    monkeypatch.setattr(time, "monotonic", lambda: now + SLOW_S + 1)
    await made.check(REGEX)
    assert asked == [REGEX, REGEX]


async def test_no_more_wait_than_may_but_for_those_that_want_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = checking(monkeypatch)
    held = asyncio.Event()

    async def ask(constraint: Constraint) -> tuple[TidemillError | None, float]:
        asked.append(constraint)
        await held.wait()
        return None, math.inf

    monkeypatch.setattr(made, "_ask", ask)
    other = Constraint("regex", "[cd]+")
    waiting = [asyncio.create_task(made.check(each)) for each in (REGEX, REGEX, other, REGEX)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="constraint-waiting-max"):
        await made.check(Constraint("regex", "[ef]+"))
    held.set()
    await asyncio.gather(*waiting)
    assert asked == [REGEX, other]
    await made.check(Constraint("regex", "[ef]+"))
