"""AdaQuant as the textbook iteration writes it; runs wherever a layer is solved.

Each block of a row has a step β and an offset α ≥ 0, and q(y) = round((y − α)/β)·β, its codes clipped to the bits. Per
round, with L the layer's output error tr(ΔW H ΔWᵀ) and dq/dw = 1 where a weight is not clipped (straight through):

    μ ← (1 − lr)·μ + lr·‖dL/dq · dq/dw‖²     the mean square gradient of the block,
    γ = √μ / τ                                its scale, by which the step's gradient is divided,
    α ← max(α − lr·wd, 0)                     with wd in units of the first step,
    β ← β·(1 − lr·clip((dL/dβ)/γ, ±1))        dq/dβ = code − (y − α)/β inside, the code itself where clipped.

α moves where weights round and is not added back: it starts at a quarter of a step and decays to plain rounding. The
best round of each row is kept, so the answer is never worse than rounding to nearest.
"""

from __future__ import annotations

import numpy as np

from tidemill.compress.forms import Uniform
from tidemill.compress.quantise.grid import Grid, plain
from tidemill.compress.quantise.sight import Sight
from tidemill.compress.quantise.uniform import ROWS_MAX
from tidemill.core.tensor import Array

OFFSET = 0.25  # of a step, at first


def classic(sight: Sight, bits: int, block: int, *, steps: int, lr: float, wd: float, tau: float) -> Uniform:
    """The best codes of `steps` rounds; `bits` with the middle code standing for zero."""
    block = min(block or sight.target.shape[1], sight.target.shape[1])
    parts = [
        _rows(sight, slice(at, at + ROWS_MAX), bits, block, steps, lr, wd, tau)
        for at in range(0, len(sight.target), ROWS_MAX)
    ]
    first = parts[0][0]
    grid = Grid(np.concatenate([each.scales for each, _ in parts]), np.concatenate([each.offsets for each, _ in parts]),
                first.bits, first.block, whole=True)  # fmt: skip
    return grid.form(np.concatenate([codes for _, codes in parts]))


def _rows(sight: Sight, rows: slice, bits: int, block: int, steps: int, lr: float, wd: float,
          tau: float) -> tuple[Grid, Array]:  # fmt: skip
    target, matrix = sight.target[rows], sight.hessian.matrix
    best = plain(target, bits, block, whole=True, symmetric=True).stored()
    best_codes = best.all_codes(target)
    least = sight.losses(best.form(best_codes).decode(), rows)
    at = np.arange(target.shape[1]) // block
    starts = np.arange(0, target.shape[1], block)
    zero = best.offsets[0, 0]
    beta = best.scales.copy()
    unit = beta.copy()
    alpha, mean_square = OFFSET * unit, np.zeros_like(beta)
    for _ in range(steps):
        place = (target - alpha[:, at]) / beta[:, at]
        codes = np.clip(np.rint(place), -zero, best.top - zero)
        grid = Grid(beta, best.offsets, bits, block, whole=True).stored()
        losses = sight.losses(grid.form(codes + zero).decode(), rows)
        better = losses < least
        best, least = best.rows(better, grid), np.minimum(losses, least)
        best_codes = np.where(better[:, None], codes + zero, best_codes)
        gradient = 2 * (codes * beta[:, at] - target) @ matrix
        inside = np.rint(place) == codes
        through = np.add.reduceat(np.square(gradient * inside), starts, axis=1)
        mean_square = (1 - lr) * mean_square + lr * through
        gamma = np.sqrt(mean_square) / tau
        alpha = np.maximum(alpha - lr * wd * unit, 0.0)
        slope = np.add.reduceat(gradient * np.where(inside, codes - place, codes), starts, axis=1)
        beta = beta * (1 - lr * np.clip(np.divide(slope, gamma, out=np.zeros_like(slope), where=gamma > 0), -1, 1))
    return best, best_codes
