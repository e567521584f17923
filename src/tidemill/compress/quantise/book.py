"""A codebook of arbitrary values, per tensor or per row, as a ladder; runs wherever a layer is solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Codebook
from tidemill.core.tensor import Array

LLOYD_ROUNDS = 25
REFIT_ROUNDS = 6


@dataclass(slots=True, eq=False)
class Book:
    """`rungs` are float64 [1 or out, levels], ascending. A mutable value of one solve; it never leaves it."""

    rungs: Array
    block: int

    @property
    def top(self) -> int:
        return int(self.rungs.shape[1]) - 1

    def codes(self, values: Array, column: int) -> Array:
        middles = (self.rungs[:, 1:] + self.rungs[:, :-1]) / 2
        if len(middles) == 1:
            return np.searchsorted(middles[0], values).astype(np.float64)
        return np.asarray((values[:, None] > middles).sum(axis=1), np.float64)

    def all_codes(self, values: Array) -> Array:
        middles = (self.rungs[:, 1:] + self.rungs[:, :-1]) / 2
        if len(middles) == 1:
            return np.searchsorted(middles[0], values).astype(np.float64)
        found = np.zeros(values.shape)
        for level in range(self.top):
            found += values > middles[:, level, None]
        return found

    def values(self, codes: Array, column: int) -> Array:
        return np.asarray(self.rungs[self._rows(len(codes))[:, 0], codes.astype(np.intp)])

    def decode(self, codes: Array) -> Array:
        return np.asarray(self.rungs[self._rows(len(codes)), codes.astype(np.intp)])

    def between(self, places: Array) -> tuple[Array, Array]:
        if self.top == 0:
            return np.broadcast_to(self.rungs.astype(np.float32), places.shape), np.zeros_like(places)
        below = np.minimum(places.astype(np.intp), self.top - 1)
        rows = self._rows(len(places))
        slope = np.diff(self.rungs, axis=1).astype(np.float32)[rows, below]
        return self.rungs.astype(np.float32)[rows, below] + (places - below) * slope, slope

    def start(self, values: Array) -> Array:
        if self.top == 0:
            return np.zeros(values.shape, np.float32)
        rows = self._rows(len(values))
        below = np.zeros(values.shape, np.intp)
        for level in range(1, self.top):
            below += values >= self.rungs[:, level, None]
        low = self.rungs[rows, below]
        gap = self.rungs[rows, below + 1] - low
        part = np.divide(values - low, gap, out=np.zeros(values.shape), where=gap > 0)
        return np.asarray(below + np.clip(part, 0.0, 1.0), np.float32)

    def refit(self, codes: Array, weight: Array, matrix: Array) -> Array:
        """By conjugate gradients on the rungs, all rows at once; they lower the loss at each step."""
        spread = self._gather(codes, np.broadcast_to(np.diagonal(matrix), codes.shape))
        at = codes.astype(np.intp)
        rows = self._rows(len(codes))
        slope = -self._gather(codes, (self.decode(codes) - weight) @ matrix)
        scaled = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
        toward, power = scaled, (slope * scaled).sum(axis=1)
        for _ in range(min(REFIT_ROUNDS, self.top + 1)):
            change = toward[rows, at]
            through = self._gather(codes, change @ matrix)
            curve = (toward * through).sum(axis=1)
            length = np.divide(power, curve, out=np.zeros_like(power), where=curve > 0)[:, None]
            self.rungs = self.rungs + length * toward
            slope = slope - length * through
            scaled = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
            now = (slope * scaled).sum(axis=1)
            toward = scaled + np.divide(now, power, out=np.zeros_like(now), where=power > 0)[:, None] * toward
            power = now
        return self._sorted(codes)

    def part(self, rows: slice) -> Book:
        return Book(self.rungs if len(self.rungs) == 1 else self.rungs[rows], self.block)

    def copy(self) -> Book:
        return Book(self.rungs.copy(), self.block)

    def form(self, codes: Array) -> Codebook:
        return Codebook(codes.astype(np.uint8), self.rungs.astype(np.float32))

    def stored(self) -> Book:
        return Book(self.rungs.astype(np.float32).astype(np.float64), self.block)

    def _rows(self, count: int) -> Array:
        """An index of rows that goes with codes [out, in]."""
        return np.zeros((1, 1), np.intp) if len(self.rungs) == 1 else np.arange(count)[:, None]

    def _gather(self, codes: Array, values: Array) -> Array:
        """The sums of `values` over the weights on each rung: [1 or out, levels]."""
        levels = self.top + 1
        at = codes.astype(np.intp)
        if len(self.rungs) > 1:
            at = at + levels * np.arange(len(codes))[:, None]
        return np.bincount(at.ravel(), np.ravel(values), levels * len(self.rungs)).reshape(-1, levels)

    def _sorted(self, codes: Array) -> Array:
        order = np.argsort(self.rungs, axis=1, kind="stable")
        if (order == np.arange(self.top + 1)).all():
            return codes
        self.rungs = np.take_along_axis(self.rungs, order, axis=1)
        place = np.argsort(order, axis=1, kind="stable")
        return np.asarray(place[self._rows(len(codes)), codes.astype(np.intp)], np.float64)


def lloyd(weight: Array, importance: Array, levels: int, *, by_row: bool) -> Book:
    """Weighted k-means in one dimension, from evenly spaced quantiles (no chance in it): Lloyd's rounds. `importance`
    is [in]; a rung that no weight is near stays where it is."""
    values = weight.astype(np.float64) if by_row else weight.astype(np.float64).reshape(1, -1)
    spots = (np.arange(levels) + 0.5) / levels
    ordered = np.sort(values, axis=1)
    rungs = ordered[:, np.minimum((spots * values.shape[1]).astype(np.intp), values.shape[1] - 1)]
    # The ends of the range too, which quantiles alone would forget.
    rungs[:, 0], rungs[:, -1] = (ordered[:, 0] + rungs[:, 0]) / 2, (ordered[:, -1] + rungs[:, -1]) / 2
    del ordered
    book = Book(rungs, weight.shape[1])
    floor = 1e-6 * float(importance.max(initial=0.0)) + 1e-30
    heavy = np.broadcast_to(importance + floor, weight.shape)
    for _ in range(LLOYD_ROUNDS):
        codes = book.all_codes(weight)
        total = book._gather(codes, heavy)
        middle = np.divide(book._gather(codes, heavy * weight), total, out=book.rungs.copy(), where=total > 0)
        if np.array_equal(middle, book.rungs):
            break
        book.rungs = np.sort(middle, axis=1)
    return book
