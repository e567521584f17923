"""The 0-1 constraint method as it was first written down: one answer a round, the least step that raises it; pure.

A constraint is y_i(w) ≤ 0. In round r the answer i = r mod n alone counts: of all steps that raise y_i and leave it
≤ 0, the one that raises it least is taken. The search ends where an answer has no such step, or nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.compress.prune.programme import FREE
from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """`ended` says why."""

    taken: Array
    steps: int
    ended: str


def walk(
    start: Array, rises: Array, sizes: Array, sets: Array, lost: Array, most: float, room: float, steps_max: int,
    allowed: Array | None = None, names: Sequence[str] = (),
) -> Walked:  # fmt: skip
    """From `start`. y_i = lost_i + rises_i · (x − start) − `most`. A step drops a free variable, or takes a set to its
    next choice (choices stand in order, the denser first). It is enough when sizes · x is `room` or less."""
    taken = start.copy()
    y = np.asarray(lost, np.float64) - most
    nexts = np.full(len(taken), -1)  # of each variable the one whose place it takes; itself where it is free
    free = np.flatnonzero(sets == FREE)
    nexts[free] = free
    bound = np.flatnonzero(sets != FREE)
    follows = bound[1:][sets[bound[1:]] == sets[bound[:-1]]]
    nexts[follows] = follows - 1
    may = np.ones(len(taken), np.bool_) if allowed is None else allowed
    steps_from = np.where((nexts >= 0) & (nexts != np.arange(len(taken))))[0]
    deltas = rises.copy()
    deltas[:, steps_from] -= rises[:, nexts[steps_from]]
    gains = sizes.copy()
    gains[steps_from] -= sizes[nexts[steps_from]]
    open_ = may & ~taken & (nexts >= 0)
    open_[steps_from] &= taken[nexts[steps_from]]
    now = float(sizes @ taken)
    for step in range(steps_max):
        if now <= room:
            return Walked(taken, step, "the size is met")
        answer = step % len(y) if len(y) else 0
        rise = deltas[answer] if len(y) else np.abs(gains)
        fits = open_ & (rise > 0) & (y[answer] + rise <= 0 if len(y) else True)
        if not fits.any():
            name = names[answer] if answer < len(names) else str(answer)
            return Walked(taken, step, f"no step is left that {name!r} allows")
        best = int(np.argmin(np.where(fits, rise, np.inf)))
        if nexts[best] != best:
            taken[nexts[best]] = False
        taken[best] = True
        y = y + deltas[:, best]
        now += float(gains[best])
        open_[best] = False
        following = best + 1
        if nexts[best] != best and following < len(taken) and sets[following] == sets[best]:
            open_[following] = bool(may[following])
    return Walked(taken, steps_max, f"{steps_max} steps were taken, and no more were allowed")
