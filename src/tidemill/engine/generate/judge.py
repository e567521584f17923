"""One child that checks, asked one thing at a time and ended where it takes too long; belongs to the owner's loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from tidemill.core.errors import TidemillError
from tidemill.core.generation import Constraint, Generate
from tidemill.engine.generate import constraint as constraints
from tidemill.engine.generate.messages import Add, Step, Topic, encode
from tidemill.engine.generate.process import Child, Listener
from tidemill.wire.problems import error_from

SLOW_S: Final = 30.0
"""So long is what took too long not tried again."""


class Judge:
    """Life: built, `ask` any number of times, one after another, `close`. `made` makes the child, which is begun with
    the first question and kept."""

    def __init__(self, made: Callable[[Listener], Child], seconds_max: float) -> None:
        self._made = made
        self._seconds_max = seconds_max
        self._child: Child | None = None
        self._answer: asyncio.Future[TidemillError | None] | None = None

    async def ask(self, constraint: Constraint) -> tuple[TidemillError | None, float]:
        """What is wrong with it, None for nothing, and until when that holds, on the clock of `time.monotonic`."""
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

    async def close(self) -> None:
        if self._child is not None:
            await self._child.close()

    # -- `process.Listener` --------------------------------------------------------------------------------------------

    def brought(self, step: Step) -> None:
        for part in step.parts:
            self._settle(None if part.problem is None else error_from(part.problem))

    def lost(self, why: str) -> None:
        self._settle(constraints.refused(f"the compiler broke on it ({why})"))

    def _settle(self, said: TidemillError | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(said)
