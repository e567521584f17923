"""A histogram that costs one bisection an observation; used where requests pass, in the owner process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (*(round(base * 10.0**power, 7) for power in range(-5, 2) for base in (1.0, 1.8, 3.2, 5.6)), 100.0)
"""Bounds from 10 µs to 100 s, four a decade."""

POWERS_OF_TWO = tuple(float(2**power) for power in range(17))

# Of OpenTelemetry's conventions for generative AI, with further ones between and around them.
TOKENS = tuple(float(2**power) for power in range(27))
FIRST_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 100.0,
)  # fmt: skip
EACH_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
SPENT_SECONDS = (0.0025, 0.005, *(round(0.01 * 2**power, 2) for power in range(17)))


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
