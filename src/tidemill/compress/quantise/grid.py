"""Evenly spaced grids per block of columns: how they are chosen, and rounding to them; runs wherever a layer is solved.

A grid is (scales, offsets), both float64 [out, blocks]; code c stands for `scale · (c − offset)`. Offsets are whole
numbers within the codes where the form stores them as such, and free otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Uniform
from tidemill.core.tensor import Array

# Shares of a block's range that are tried: fewer bits gain more from cutting tails off.
SHRINKS = tuple(np.linspace(1.0, 0.3, 29))
REFITS = 6


@dataclass(slots=True, eq=False)
class Grid:
    """`block` columns share a scale and an offset. A mutable value of one solve; it never leaves it."""

    scales: Array
    offsets: Array
    bits: int
    block: int
    whole: bool

    @property
    def top(self) -> int:
        return int(2**self.bits - 1)

    def codes(self, values: Array, column: int) -> Array:
        """The nearest codes (float64) for one column's values [out]."""
        at = column // self.block
        scale = self.scales[:, at]
        return np.clip(np.rint(values / scale + self.offsets[:, at]), 0, self.top)

    def all_codes(self, values: Array) -> Array:
        """The nearest codes (float64) for values [out, in]."""
        at = np.arange(values.shape[1]) // self.block
        return np.clip(np.rint(values / self.scales[:, at] + self.offsets[:, at]), 0, self.top)

    def values(self, codes: Array, column: int) -> Array:
        at = column // self.block
        return np.asarray((codes - self.offsets[:, at]) * self.scales[:, at])

    def between(self, places: Array) -> tuple[Array, Array]:
        at = np.arange(places.shape[1]) // self.block
        slope = self.scales.astype(np.float32)[:, at]
        return (places - self.offsets.astype(np.float32)[:, at]) * slope, slope

    def start(self, values: Array) -> Array:
        at = np.arange(values.shape[1]) // self.block
        places = values / self.scales[:, at] + self.offsets[:, at]
        return np.clip(places, 0, self.top).astype(np.float32)

    def refit(self, codes: Array, weight: Array, matrix: Array) -> Array:
        """Block after block, each exactly."""
        gradient = (self.decode(codes) - weight) @ matrix
        for first in range(0, codes.shape[1], self.block):
            where = slice(first, min(first + self.block, codes.shape[1]))
            delta = self.learn(codes[:, where], gradient[:, where], matrix[where, where], first // self.block)
            gradient += delta @ matrix[where]
        return codes

    def learn(self, codes: Array, gradient: Array, matrix: Array, at: int) -> Array:
        """The least-squares scale (and free offset) of block `at`, all else held: what its weights change by. `codes`,
        `gradient` (of half the loss) and `matrix` are the block's."""
        scales, offsets = self.scales[:, at], self.offsets[:, at]
        basis = codes - offsets[:, None]
        through = basis @ matrix
        cc, cg = np.einsum("rk,rk->r", through, basis), np.einsum("rk,rk->r", basis, gradient)
        if self.whole:
            ds = np.divide(-cg, cc, out=np.zeros_like(cc), where=cc > 0)
            dt = np.zeros_like(ds)
        else:
            c1, one = through.sum(axis=1), float(matrix.sum())
            g1 = gradient.sum(axis=1)
            determinant = cc * one - c1 * c1
            sound = determinant > 1e-9 * cc * one
            ds = np.divide(c1 * g1 - one * cg, determinant, out=np.zeros_like(cc), where=sound)
            dt = np.divide(c1 * cg - cc * g1, determinant, out=np.zeros_like(cc), where=sound)
        new = scales + ds
        # A scale that would vanish or turn over is left to the codes to repair.
        kept = (np.sign(new) == np.sign(scales)) & (np.abs(new) > 1e-3 * np.abs(scales))
        ds, dt = np.where(kept, ds, 0.0), np.where(kept, dt, 0.0)
        step = scales + ds  # `scales` is a view: it changes with the next line
        self.scales[:, at] = step
        self.offsets[:, at] = offsets - dt / step
        return np.asarray(ds[:, None] * basis + dt[:, None])

    def decode(self, codes: Array) -> Array:
        at = np.arange(codes.shape[1]) // self.block
        return np.asarray((codes - self.offsets[:, at]) * self.scales[:, at])

    def part(self, rows: slice) -> Grid:
        return Grid(self.scales[rows], self.offsets[rows], self.bits, self.block, self.whole)

    def copy(self) -> Grid:
        return Grid(self.scales.copy(), self.offsets.copy(), self.bits, self.block, self.whole)

    def rows(self, where: Array, other: Grid) -> Grid:
        """This grid, with `other`'s rows where `where` says so."""
        return Grid(
            np.where(where[:, None], other.scales, self.scales),
            np.where(where[:, None], other.offsets, self.offsets),
            self.bits,
            self.block,
            self.whole,
        )

    def stored(self) -> Grid:
        """The grid as its form keeps it: float32 scales, uint8 or float32 offsets."""
        offsets = np.rint(self.offsets) if self.whole else self.offsets.astype(np.float32).astype(np.float64)
        return Grid(self.scales.astype(np.float32).astype(np.float64), offsets, self.bits, self.block, self.whole)

    def form(self, codes: Array) -> Uniform:
        kind = np.uint8 if self.whole else np.float32
        return Uniform(
            codes.astype(np.uint8),
            self.scales.astype(np.float32),
            self.offsets.astype(kind),
            self.bits,
            0 if self.block >= codes.shape[1] else self.block,
        )


def blocks(values: Array, block: int, fill: float) -> Array:
    """[out, in] -> [out, blocks, block]; a last block that is short is filled up."""
    rows, columns = values.shape
    short = -columns % block
    if short:
        values = np.concatenate([values, np.full((rows, short), fill)], axis=1)
    return values.reshape(rows, -1, block)


def plain(weight: Array, bits: int, block: int, *, whole: bool, symmetric: bool = False) -> Grid:
    """Each block's minimum and maximum, evenly divided: round-to-nearest, the figure to beat."""
    low, high = _range(weight, block)
    return _between(low, high, bits, block, whole=whole, symmetric=symmetric)


def fitted(weight: Array, importance: Array, bits: int, block: int, *, whole: bool, symmetric: bool = False) -> Grid:
    """The grid with the least Σ importance·(w − ŵ)² found: ranges cut shorter, then offsets and scales by least
    squares and codes anew by turns. `importance` is [in]."""
    low, high = _range(weight, block)
    values = blocks(weight.astype(np.float64), block, 0.0)
    heavy = blocks(np.broadcast_to(importance, (1, weight.shape[1])), block, 0.0)
    heavy = heavy + 1e-12 * heavy.max()  # a block whose inputs are dead is rounded by its weights alone
    if weight.shape[1] % block:
        heavy[:, -1, weight.shape[1] % block :] = 0.0
    best = _between(low, high, bits, block, whole=whole, symmetric=symmetric)
    least = _loss(values, heavy, best)
    middle, half = (low + high) / 2, (high - low) / 2
    for shrink in SHRINKS[1:] if bits < 8 else SHRINKS[1:6]:
        if whole:
            tried = _between(low * shrink, high * shrink, bits, block, whole=True, symmetric=symmetric)
        else:
            tried = _between(
                middle - half * shrink, middle + half * shrink, bits, block, whole=False, symmetric=symmetric
            )
        least = _keep_better(values, heavy, best, tried, least)
    for _ in range(REFITS):
        tried = _refit(values, heavy, best)
        least = _keep_better(values, heavy, best, tried, least)
    return best


def _range(weight: Array, block: int) -> tuple[Array, Array]:
    padded = blocks(weight.astype(np.float64), block, np.nan)
    return np.nanmin(padded, axis=2), np.nanmax(padded, axis=2)


def _between(low: Array, high: Array, bits: int, block: int, *, whole: bool, symmetric: bool) -> Grid:
    top = 2**bits - 1
    if symmetric:
        # As MatMulNBits has it without zero points: the offset is 2**(bits − 1), one code more below than above.
        offset = 2.0 ** (bits - 1) if whole else top / 2
        reach = np.maximum(np.abs(low), np.abs(high))
        scales = reach / (offset - 1 if whole and bits > 1 else offset)
        scales = np.where(scales > 0, scales, 1.0)
        return Grid(scales, np.full_like(scales, offset), bits, block, whole)
    if whole:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    scales = (high - low) / top
    # A block of one value: a step as large as the value writes it down without loss, as code 1 and offset 0.
    flat = scales <= 1e-7 * np.abs(high)
    scales = np.where(flat, np.where(high != 0, high, 1.0), scales)
    offsets = np.where(flat, 0.0, -low / scales)
    if whole:
        offsets = np.clip(np.rint(offsets), 0, top)
    return Grid(scales, offsets, bits, block, whole)


def _round(values: Array, grid: Grid) -> Array:
    scales, offsets = grid.scales[..., None], grid.offsets[..., None]
    return np.clip(np.rint(values / scales + offsets), 0, grid.top)


def _loss(values: Array, heavy: Array, grid: Grid) -> Array:
    error = (_round(values, grid) - grid.offsets[..., None]) * grid.scales[..., None] - values
    return np.asarray(np.einsum("rbk,rbk,qbk->rb", error, error, heavy))


def _keep_better(values: Array, heavy: Array, best: Grid, tried: Grid, least: Array) -> Array:
    loss = _loss(values, heavy, tried)
    better = loss < least
    best.scales = np.where(better, tried.scales, best.scales)
    best.offsets = np.where(better, tried.offsets, best.offsets)
    return np.minimum(loss, least)


def _refit(values: Array, heavy: Array, grid: Grid) -> Grid:
    codes = _round(values, grid)
    if grid.whole:
        centred = codes - grid.offsets[..., None]
        above = np.einsum("rbk,rbk,qbk->rb", centred, values, heavy)
        below = np.einsum("rbk,rbk,qbk->rb", centred, centred, heavy)
        scales = np.divide(above, below, out=grid.scales.copy(), where=below > 0)
        return Grid(np.where(scales > 0, scales, grid.scales), grid.offsets, grid.bits, grid.block, True)
    total = heavy.sum(axis=2)
    mean_code = np.einsum("rbk,qbk->rb", codes, heavy) / total
    mean = np.einsum("rbk,qbk->rb", values, heavy) / total
    codes = codes - mean_code[..., None]
    above = np.einsum("rbk,rbk,qbk->rb", codes, values, heavy)
    below = np.einsum("rbk,rbk,qbk->rb", codes, codes, heavy)
    scales = np.divide(above, below, out=grid.scales.copy(), where=below > 1e-300)
    scales = np.where(scales > 1e-9 * np.abs(mean), scales, grid.scales)
    return Grid(scales, mean_code - mean / scales, grid.bits, grid.block, False)
