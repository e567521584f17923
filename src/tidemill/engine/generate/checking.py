"""Asks the child that checks whether what an answer must fit can be compiled, in time; belongs to the owner's loop.

The child is started when the first such request comes, and kept. What it said is remembered; that it took too long
only for a while, because on a busy machine that says little of what was asked.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from tidemill.core.errors import Overloaded, TidemillError, WrongValue
from tidemill.core.generation import Constraint, Generate
from tidemill.engine.generate import constraint as constraints
from tidemill.engine.generate.messages import Add, Step, Topic, encode
from tidemill.engine.generate.process import Child, Listener
from tidemill.wire.problems import error_from

REMEMBERED_MAX: Final = 512
SLOW_S: Final = 30.0
"""So long is what took too long not tried again."""
RETRY_AFTER_S: Final = 1.0


class Checking:
    """Life: built, `check` any number of times, `close`. `started` makes the child, which is not begun yet."""

    def __init__(self, made: Callable[[Listener], Child], seconds_max: float, waiting_max: int) -> None:
        """So many that are unlike each other are judged or wait for it at once, at most."""
        self._made = made
        self._seconds_max = seconds_max
        self._waiting_max = waiting_max
        self._wanted: Counter[Constraint] = Counter()
        self._child: Child | None = None
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[TidemillError | None] | None = None
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
        wanted = self._wanted
        if constraint not in wanted and len(wanted) >= self._waiting_max:
            raise Overloaded(
                f"{len(wanted)} schemas and patterns are being compiled, the most allowed (--constraint-waiting-max)",
                retry_after_s=RETRY_AFTER_S,
            )
        wanted[constraint] += 1
        try:
            async with self._turn:
                said = self._remembered(constraint)
                if said is None:
                    said = self._said[constraint] = await self._ask(constraint)
                    if len(self._said) > REMEMBERED_MAX:
                        self._said.popitem(last=False)
                return said
        finally:
            wanted[constraint] -= 1
            if not wanted[constraint]:
                del wanted[constraint]

    async def close(self) -> None:
        if self._child is not None:
            await self._child.close()

    def _remembered(self, constraint: Constraint) -> tuple[TidemillError | None, float] | None:
        said = self._said.get(constraint)
        return said if said is not None and time.monotonic() < said[1] else None

    async def _ask(self, constraint: Constraint) -> tuple[TidemillError | None, float]:
        if self._child is None:
            child = self._made(self)
            await child.open()
            self._child = child
        child = self._child
        peer = await child.serving()
        self._answer = answer = asyncio.get_running_loop().create_future()
        peer.tell(int(Topic.ADD), encode(Add(0, Generate(constraint=constraint))))
        try:
            return await asyncio.wait_for(answer, self._seconds_max), math.inf
        except TimeoutError:
            child.kill()
            return constraints.refused(f"it takes more than {self._seconds_max:g} s"), time.monotonic() + SLOW_S
        except asyncio.CancelledError:
            child.kill()  # whoever asks next must not wait behind what nobody wants
            raise
        finally:
            self._answer = None

    # -- `process.Listener` --------------------------------------------------------------------------------------------

    def brought(self, step: Step) -> None:
        for part in step.parts:
            self._settle(None if part.problem is None else error_from(part.problem))

    def lost(self, why: str) -> None:
        self._settle(constraints.refused(f"the compiler broke on it ({why})"))

    def _settle(self, said: TidemillError | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(said)
