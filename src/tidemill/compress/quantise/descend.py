"""Codes that lose little of a layer's output tr(ΔW H ΔWᵀ): compensation column by column, then coordinate descent.

Runs wherever a layer is solved. Everything is float64 and deterministic; a step is taken only where it lowers the loss.
"""

from __future__ import annotations

import numpy as np

from tidemill.compress.hessian import Hessian
from tidemill.compress.quantise.grid import Grid
from tidemill.compress.quantise.ladder import Ladder
from tidemill.core.tensor import Array

LAZY = 128  # columns whose compensation reaches the columns after them in one matrix product
STEP = 64  # columns of one turn of coordinate descent, at least


def compensated(weight: Array, hessian: Hessian, ladder: Ladder, *, by_weight: bool = True) -> Array:
    """Codes [out, in] by GPTQ: columns in turn (heaviest inputs first), each one's rounding error made up for by those
    not yet rounded."""
    rows, columns = weight.shape
    heavy = np.diagonal(hessian.matrix)
    order = np.argsort(-heavy, kind="stable") if by_weight else np.arange(columns)
    upper = hessian.upper(order)
    left = np.asarray(weight, np.float64)[:, order]
    codes = np.empty((rows, columns))
    for start in range(0, columns, LAZY):
        stop = min(start + LAZY, columns)
        errors = np.empty((rows, stop - start))
        for at in range(start, stop):
            column = int(order[at])
            codes[:, column] = ladder.codes(left[:, at], column)
            error = (left[:, at] - ladder.values(codes[:, column], column)) / upper[at, at]
            left[:, at:stop] -= error[:, None] * upper[at, at:stop]
            errors[:, at - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes


def descended(weight: Array, matrix: Array, ladder: Ladder, codes: Array, sweeps: int) -> Array:
    """Codes after `sweeps` of coordinate descent on tr(ΔW H ΔWᵀ), each code set to its best in turn, and the rungs
    after them: `ladder` is changed in place."""
    columns = weight.shape[1]
    diagonal = np.diagonal(matrix)
    codes = codes.copy()
    quantised = ladder.decode(codes)
    gradient = (quantised - weight) @ matrix
    # A grid's small blocks are learned in passing, whole rows and codebooks after each sweep.
    grid = ladder if isinstance(ladder, Grid) and ladder.block <= STEP else None
    step = STEP if grid is None else grid.block * (STEP // grid.block)
    for _ in range(sweeps):
        moved = False
        for start in range(0, columns, step):
            stop = min(start + step, columns)
            local, inner = gradient[:, start:stop].copy(), matrix[start:stop, start:stop]
            before = quantised[:, start:stop].copy()
            for column in range(start, stop):
                at = column - start
                best = ladder.codes(quantised[:, column] - local[:, at] / diagonal[column], column)
                if (best == codes[:, column]).all():
                    continue
                change = np.where(best == codes[:, column], 0.0, ladder.values(best, column) - quantised[:, column])
                codes[:, column] = best
                quantised[:, column] += change
                local += change[:, None] * inner[at]
            if grid is not None:
                for first in range(start, stop, grid.block):
                    where = slice(first, min(first + grid.block, stop))
                    here = slice(where.start - start, where.stop - start)
                    delta = grid.learn(codes[:, where], local[:, here], inner[here, here], first // grid.block)
                    quantised[:, where] += delta
                    local += delta @ inner[here]
            delta = quantised[:, start:stop] - before
            if delta.any():
                moved = True
                gradient += delta @ matrix[start:stop]
        if not moved:
            break
        if grid is None:
            codes = ladder.refit(codes, weight, matrix)
            quantised = ladder.decode(codes)
            gradient = (quantised - weight) @ matrix
    return codes
