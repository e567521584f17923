"""Adds up what is known of a layer's inputs, batch by batch, in memory that does not grow with the rows.

Products are taken in float32 a batch at a time and added up in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.task import Moments
from tidemill.core.tensor import Array

BINS = 2048
MAGNITUDE_MAX = 1e15
"""The square of anything greater, summed over rows, would leave float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """The inputs of one layer (of one of its groups). `fit` and `held` are those that the compressed model gives.

    Where the original model gives others, `cross` is C = E[x x̂ᵀ] [K, K] over the rows of `fit`, x the original's, and
    `mean` is E[x]; both are None where the two are the same.
    """

    fit: Moments
    held: Moments
    cross: Array | None = None
    mean: Array | None = None


class Histogram:
    """Counts over evenly spaced bins whose range doubles as values need it; then pairs of bins become one."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: Array, low: float, high: float) -> None:
        """All finite; `low` and `high` are their least and greatest."""
        if not values.size:
            return
        if not self.counts.any():
            # Zero is an edge's usual place: ranges that touch it stay there.
            self.low, self.high = min(low, 0.0), max(high, 0.0)
            if self.high <= self.low:
                self.high = self.low + 1.0
        while low < self.low:
            self.low -= self.high - self.low
            self._halve(BINS // 2)
        while high > self.high:
            self.high += self.high - self.low
            self._halve(0)
        scale = np.float32(BINS / (self.high - self.low))
        # The least and the greatest fall on the ends; rounding may put them one bin too far.
        bins = np.clip((values.ravel() - np.float32(self.low)) * scale, 0, BINS - 1).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    def _halve(self, at: int) -> None:
        pairs = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[at : at + BINS // 2] = pairs

    @property
    def edges(self) -> Array:
        return np.linspace(self.low, self.high if self.high > self.low else self.low + 1.0, BINS + 1)


class Sums:
    """Of inputs [groups, rows, K]; all groups share one histogram."""

    def __init__(self, groups: int, features: int, crossed: bool = False) -> None:
        self.count = 0
        self.first = np.zeros((groups, features))
        self.second = np.zeros((groups, features, features))
        self.low = np.full((groups, features), np.inf, np.float32)
        self.high = np.full((groups, features), -np.inf, np.float32)
        self.histogram = Histogram()
        self.original = np.zeros((groups, features)) if crossed else None
        self.cross = np.zeros((groups, features, features)) if crossed else None

    def add(self, inputs: Array, originals: Array | None = None) -> bool:
        """float32 [groups, rows, K], C-contiguous. False, and nothing added, when one is NaN or beyond
        `MAGNITUDE_MAX`."""
        rows = inputs.shape[1]
        if not rows:
            return True
        low, high = inputs.min(axis=1), inputs.max(axis=1)  # a NaN is in both
        if not (low.min() >= -MAGNITUDE_MAX and high.max() <= MAGNITUDE_MAX):
            return False
        if originals is not None and not (originals.min() >= -MAGNITUDE_MAX and originals.max() <= MAGNITUDE_MAX):
            return False
        self.count += rows
        self.first += inputs.sum(axis=1, dtype=np.float64)
        np.minimum(self.low, low, out=self.low)
        np.maximum(self.high, high, out=self.high)
        self.histogram.add(inputs, float(low.min()), float(high.max()))
        for group, matrix in enumerate(inputs):
            self.second[group] += matrix.T @ matrix
            if self.cross is not None and self.original is not None and originals is not None:
                self.cross[group] += originals[group].T @ matrix
                self.original[group] += originals[group].sum(axis=0, dtype=np.float64)
        return True

    def moments(self) -> list[Moments]:
        """One a group."""
        count = max(self.count, 1)
        seen = bool(self.count)
        return [
            Moments(
                self.count,
                self.second[group] / count,
                self.first[group] / count,
                self.low[group] if seen else np.zeros_like(self.low[group]),
                self.high[group] if seen else np.zeros_like(self.high[group]),
                self.histogram.counts,
                self.histogram.edges,
            )
            for group in range(len(self.first))
        ]

    def crossed(self) -> list[tuple[Array, Array] | None]:
        """(C, E[x]), one a group."""
        if self.cross is None or self.original is None or not self.count:
            return [None] * len(self.first)
        return [(c / self.count, o / self.count) for c, o in zip(self.cross, self.original, strict=True)]


def identity(features: int, rows: int) -> Moments:
    """For an embedding: every row of the table is an output of its own, as if x were the identity."""
    one, zero = np.ones(features), np.zeros(features)
    histogram = Histogram()
    histogram.add(np.ones(1, np.float32), 1.0, 1.0)
    return Moments(
        rows, np.eye(features), zero, zero.astype(np.float32), one.astype(np.float32), histogram.counts, histogram.edges
    )
