"""A histogram that costs one bisection an observation; used where requests pass, in the owner process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (*(round(base * 10.0**power, 7) for power in range(-5, 2) for base in (1.0, 1.8, 3.2, 5.6)), 100.0)
"""Bounds from 10 µs to 100 s, four a decade."""

POWERS_OF_TWO = tuple(float(2**power) for power in range(17))


class Histogram:
    """Counts by upper bound (inclusive), with the sum. Belongs to one thread; reading from another is a glance."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the observations lie, interpolated within its bucket; 0 when empty."""
        count = self.count
        rank = share * count
        seen = 0
        low = 0.0
        for bound, inside in zip(self.bounds, self.counts, strict=False):
            if inside and seen + inside >= rank:
                return low + (bound - low) * (rank - seen) / inside
            seen += inside
            low = bound
        return low if count else 0.0
