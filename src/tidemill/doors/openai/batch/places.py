"""Places for lines of batches at the models, given only in the gaps; belongs to the owner's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidemill.core.contracts import Served
from tidemill.serve.gaps import places

LOOK_S = 0.05
"""How often a line that waits looks whether others have left a gap."""


class Places:
    """`take` a place before a line begins, `give_back` when it has ended."""

    def __init__(self, most: int, held: Callable[[str], int]) -> None:
        """`held` tells how many requests a model holds between admission and reply, those of lines among them."""
        self._most = most
        self._held = held
        self._lines: dict[str, int] = {}
        self._works: dict[str, int] = {}
        self._freed = asyncio.Event()

    async def take(self, served: Served, works: int, halted: Callable[[], bool]) -> bool:
        """Wait for a place; False where `halted` says so first. `works` is how many requests the line makes."""
        name = served.name
        while not halted():
            lines = self._lines.get(name, 0)
            others = self._held(name) - self._works.get(name, 0)
            if places(self._most, lines, others, served.waiting) > 0:
                self._lines[name] = lines + 1
                self._works[name] = self._works.get(name, 0) + works
                return True
            self._freed.clear()
            await wait(self._freed, LOOK_S)
        return False

    def give_back(self, served: Served, works: int) -> None:
        name = served.name
        for counts, less in ((self._lines, 1), (self._works, works)):
            counts[name] -= less
            if not counts[name]:
                del counts[name]
        self._freed.set()

    @property
    def lines(self) -> int:
        """Under way now, of all models."""
        return sum(self._lines.values())


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until `event`, or for so long."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
