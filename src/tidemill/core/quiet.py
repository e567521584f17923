"""Holds a piece of work while an event loop is busy and starts it when the loop falls quiet; used by the owner process.

Work that shares the loop's thread, or that costs the same for one request as for thirty, gains nothing by starting
while requests are still being read: let them join first. When there is nothing else to do, waiting would gain nothing
either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

QUIET_TURNS = 1
"""Turns of the loop without progress after which it has nothing left to do. One is enough to let the requests join that
were read in the same turn; more only spin, and keep gRPC's own thread from bringing the next."""


class WhenQuiet:
    """Calls `then` once for each `hold`, from the loop: when `progress` has stood still for a few turns, or `delay_s`
    after the hold at the latest. A further `hold` before that changes nothing. Belongs to one loop."""

    __slots__ = ("_delay_s", "_holding", "_loop", "_progress", "_quiet_turns", "_seen", "_since", "_then")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, progress: Callable[[], int], delay_s: float, then: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._progress = progress
        self._delay_s = delay_s
        self._then = then
        self._holding = False
        self._seen = 0
        self._quiet_turns = 0
        self._since = 0.0

    def hold(self) -> None:
        if self._holding:
            return
        self._holding = True
        self._seen = self._progress()
        self._quiet_turns = 0
        self._since = time.monotonic()
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Once in each turn of the loop while something is held."""
        seen = self._progress()
        self._quiet_turns = self._quiet_turns + 1 if seen == self._seen else 0
        self._seen = seen
        if self._quiet_turns < QUIET_TURNS and time.monotonic() - self._since < self._delay_s:
            self._loop.call_soon(self._look)
        else:
            self._holding = False
            self._then()
