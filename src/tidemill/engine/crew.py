"""Who runs the next batch of a lane: one engine on all cores, or several on a core each; state of the lane's loop.

One request alone is answered soonest by all cores together. Where many come, a core to each batch costs less: threads
that share a batch wait for one another (magika: 9.4 ms of CPU a row on two threads, 8.7 on one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tidemill.core.contracts import Engine
from tidemill.core.errors import UnknownSignature
from tidemill.core.text import short
from tidemill.engine.run_batch import Entry
from tidemill.engine.worker import Worker

CROWDED = 1.5
"""Requests in the lane, the newcomer included, from which on the cores work apart."""
_SMOOTHING = 0.1


class Seat:
    """An engine for each signature, their thread, and the batch that one of them works on; free when that is empty."""

    __slots__ = ("batch", "engines", "worker")

    def __init__(self, engines: Mapping[str, Engine], name: str) -> None:
        self.engines = engines
        self.worker = Worker(name)
        self.batch: list[Entry] = []

    def close(self) -> None:
        self.worker.close()
        for engine in self.engines.values():
            engine.close()


class Crew:
    """`wide` runs with all cores, `narrow` side by side; never both at once. Owns the engines."""

    def __init__(
        self, wide: Engine, narrow: Sequence[Engine] = (), further: Mapping[str, Sequence[Engine]] | None = None
    ) -> None:
        """`further`: for each other signature an engine beside `wide` and each of `narrow`, in their order."""
        beside = (further or {}).items()
        seats = [{"": engine, **{name: each[place] for name, each in beside}}
                 for place, engine in enumerate((wide, *narrow))]  # fmt: skip
        self.wide = Seat(seats[0], "lane")
        self._narrow = [Seat(engines, f"lane-{number}") for number, engines in enumerate(seats[1:])]
        self._crowd = 1.0
        self._busy = 0  # requests that are being worked on

    def begin(self, seat: Seat, batch: list[Entry]) -> None:
        seat.batch = batch
        self._busy += len(batch)

    def end(self, seat: Seat) -> list[Entry]:
        """Free `seat`; what it worked on."""
        batch, seat.batch = seat.batch, []
        self._busy -= len(batch)
        return batch

    def check(self, signature: str) -> None:
        """Raises `UnknownSignature` for one that no engine here answers."""
        if signature not in self.wide.engines:
            raise UnknownSignature(f"there is no signature {short(signature)} any more; the model was loaded anew")

    @property
    def seats(self) -> list[Seat]:
        return [self.wide, *self._narrow]

    @property
    def size(self) -> int:
        """How many batches may run at once."""
        return len(self._narrow) or 1

    @property
    def running(self) -> list[Entry]:
        """What is being worked on."""
        return [entry for seat in self.seats for entry in seat.batch]

    @property
    def idle(self) -> bool:
        return not self._busy

    @property
    def ready(self) -> bool:
        """Whether somebody could start now."""
        if not self._busy:
            return True
        return not self.wide.batch and any(not seat.batch for seat in self._narrow)

    def arrived(self, waiting: int) -> None:
        """Learn from a newcomer, counted in `waiting`."""
        if self._narrow:
            self._crowd += _SMOOTHING * (waiting + self._busy - self._crowd)

    def next(self, waiting: int) -> tuple[Seat, int] | None:
        """The seat for the next batch and the most requests it should hold, of `waiting`; None while all work."""
        if self.wide.batch:
            return None
        free = [seat for seat in self._narrow if not seat.batch]
        if len(free) == len(self._narrow) and (not free or self._crowd < CROWDED):
            return self.wide, waiting
        return (free[0], math.ceil(waiting / len(free))) if free else None

    def on_loop(self, waiting: int) -> tuple[Seat, int] | None:
        """As `next`, for a batch that the loop itself runs: all that waits, on one core where there is such a seat."""
        seat = self._narrow[0] if self._narrow else self.wide
        return (seat, waiting) if self.idle else None

    def close(self) -> None:
        for seat in self.seats:
            seat.close()
