"""Asks the children that check whether what an answer must fit can be compiled, in time; belongs to the owner's loop.

What they said is remembered; that it took too long only for a while, because on a busy machine that says little of what
was asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from tidemill.core.errors import Overloaded, TidemillError, WrongValue
from tidemill.core.generation import Constraint
from tidemill.engine.generate import constraint as constraints

REMEMBERED_MAX: Final = 512
RETRY_AFTER_S: Final = 1.0


class Judge(Protocol):
    """`judge.Judge`, asked one thing at a time."""

    async def ask(self, constraint: Constraint) -> tuple[TidemillError | None, float]: ...

    async def close(self) -> None: ...


class Checking:
    """Life: built, `check` any number of times, `close`."""

    def __init__(self, judges: Sequence[Judge], waiting_max: int) -> None:
        """So many that are unlike each other are judged or wait for it at once, at most; those in turn, by `judges`."""
        self._judges = judges
        self._idle = list(judges)
        self._places = asyncio.Semaphore(len(judges))
        self._waiting_max = waiting_max
        self._wanted: dict[Constraint, _Wanted] = {}
        self._said: OrderedDict[Constraint, tuple[TidemillError | None, float]] = OrderedDict()
        """What was said, and until when it holds, on the clock of `time.monotonic`."""

    async def check(self, constraint: Constraint) -> None:
        """Raises `WrongValue` for what cannot be compiled, or not in time; `Overloaded` where too many wait."""
        constraints.check(constraint)
        if constraint.kind == "json" and not constraint.calls:
            return  # it is ours
        said = self._remembered(constraint)
        error, _ = said or await self._in_turn(constraint)
        if error is not None:
            raise WrongValue(error.message, param=error.param)

    async def _in_turn(self, constraint: Constraint) -> tuple[TidemillError | None, float]:
        if constraint not in self._wanted and len(self._wanted) >= self._waiting_max:
            raise Overloaded(
                f"{len(self._wanted)} schemas and patterns are being compiled, the most allowed"
                " (--constraint-waiting-max)",
                retry_after_s=RETRY_AFTER_S,
            )
        wanted = self._wanted.setdefault(constraint, _Wanted())
        wanted.count += 1
        try:
            async with wanted.turn:  # the first asks for all
                said = self._remembered(constraint)
                if said is None:
                    said = self._said[constraint] = await self._judged(constraint)
                    if len(self._said) > REMEMBERED_MAX:
                        self._said.popitem(last=False)
                return said
        finally:
            wanted.count -= 1
            if not wanted.count:
                del self._wanted[constraint]

    async def _judged(self, constraint: Constraint) -> tuple[TidemillError | None, float]:
        async with self._places:
            judge = self._idle.pop()  # the one that was asked last: another begins a process only where it is needed
            try:
                return await judge.ask(constraint)
            finally:
                self._idle.append(judge)

    async def close(self) -> None:
        await asyncio.gather(*(judge.close() for judge in self._judges))

    def _remembered(self, constraint: Constraint) -> tuple[TidemillError | None, float] | None:
        said = self._said.get(constraint)
        return said if said is not None and time.monotonic() < said[1] else None


class _Wanted:
    """A constraint that so many wait for."""

    def __init__(self) -> None:
        self.count = 0
        self.turn = asyncio.Lock()
