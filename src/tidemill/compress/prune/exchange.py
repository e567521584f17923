"""Greedy exchange of zeros between layers, towards the supports that lose least at one size; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """`losses` [layers, levels] and `sizes` [layers, levels] (weights kept) of every layer at every level, the levels
    rising in zeros. `masses` [layers, levels] is what is left of Σ|θ|."""

    losses: Array
    sizes: Array
    masses: Array

    def of(self, what: Array, levels: Array) -> float:
        return float(what[np.arange(len(levels)), levels].sum())

    def mass(self, levels: Array) -> float:
        """l₁(θ) next to that of the dense model."""
        return self.of(self.masses, levels) / max(float(self.masses[:, 0].sum()), 1e-300)


def shrink(table: Table, levels: Array, room: float) -> Array | None:
    """`levels` with the steps that cost least for each weight, one after another, until `room` weights are kept; None
    where the last levels keep more."""
    now = levels.copy()
    each = np.arange(len(now))
    top = table.losses.shape[1] - 1
    while table.of(table.sizes, now) > room:
        following = np.minimum(now + 1, top)
        saved = table.sizes[each, now] - table.sizes[each, following]
        cost = table.losses[each, following] - table.losses[each, now]
        price = np.where((now < top) & (saved > 0), cost / np.maximum(saved, 1e-300), np.inf)
        best = int(np.argmin(price))
        if not np.isfinite(price[best]):
            return None
        now[best] += 1
    return now


def spend(table: Table, levels: Array, room: float) -> Array:
    """`levels` with back what wins most for each weight, as long as there is room."""
    now = levels.copy()
    each = np.arange(len(now))
    while True:
        before = np.maximum(now - 1, 0)
        taken = table.sizes[each, before] - table.sizes[each, now]
        won = table.losses[each, now] - table.losses[each, before]
        fits = (now > 0) & (taken <= room - table.of(table.sizes, now)) & (won > 0)
        if not fits.any():
            return now
        now[int(np.argmax(np.where(fits, won / np.maximum(taken, 1e-300), -np.inf)))] -= 1


def exchange(
    table: Table, starts: Sequence[Array], room: float, least_mass: float, count: int, swaps_max: int
) -> list[Array]:
    """The `count` best levels found, the best first: from each start the exchange (one layer a level sparser, another
    one denser) that wins most, again and again, at most `swaps_max` times. Every one keeps at most `room` weights
    and more than `least_mass` of Σ|θ|."""
    found: dict[bytes, tuple[float, Array]] = {}

    def note(levels: Array) -> None:
        if table.of(table.sizes, levels) <= room and table.mass(levels) > least_mass:
            found.setdefault(levels.tobytes(), (table.of(table.losses, levels), levels))

    for start in starts:
        fitting = shrink(table, start, room)
        if fitting is None:
            continue
        now = spend(table, fitting, room)
        note(now)
        for _ in range(swaps_max):
            better = _swapped(table, now, room)
            if better is None:
                break
            now = spend(table, better, room)
            note(now)
    return [levels for _, levels in sorted(found.values(), key=lambda pair: pair[0])[:count]]


def _swapped(table: Table, now: Array, room: float) -> Array | None:
    each = np.arange(len(now))
    top = table.losses.shape[1] - 1
    sparser, denser = np.minimum(now + 1, top), np.maximum(now - 1, 0)
    loses = table.losses[each, sparser] - table.losses[each, now]
    wins = table.losses[each, now] - table.losses[each, denser]
    saves = table.sizes[each, now] - table.sizes[each, sparser]
    takes = table.sizes[each, denser] - table.sizes[each, now]
    gain = wins[None] - loses[:, None]
    slack = room - table.of(table.sizes, now)
    fits = (takes[None] <= saves[:, None] + slack) & ~np.eye(len(now), dtype=np.bool_)
    may = (now < top)[:, None] & (now > 0)[None] & fits
    gain = np.where(may, gain, -np.inf)
    place = int(np.argmax(gain)) if gain.size else 0
    if not gain.size or gain.ravel()[place] <= 1e-12 * max(float(np.abs(table.losses).max()), 1e-300):
        return None
    down, up = divmod(place, len(now))
    after = now.copy()
    after[down] += 1
    after[up] -= 1
    return after
