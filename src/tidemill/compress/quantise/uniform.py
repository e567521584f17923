"""The steps that the quantisers with evenly spaced values share; runs wherever a layer is solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Uniform
from tidemill.compress.hessian import Hessian
from tidemill.compress.quantise.anneal import annealed
from tidemill.compress.quantise.descend import compensated, descended
from tidemill.compress.quantise.grid import Grid, fitted, plain
from tidemill.compress.quantise.sight import Sight
from tidemill.core.tensor import Array

ROWS_MAX = 2048  # solved at once: what bounds the memory of an embedding's table


@dataclass(frozen=True, slots=True)
class Plan:
    """`whole` offsets are stored as codes, others as float32. `steps` of learned rounding; `block` 0 is a whole row."""

    bits: int
    block: int
    whole: bool = True
    symmetric: bool = False
    by_weight: bool = True
    sweeps: int = 4
    steps: int = 0


def quantised(sight: Sight, plan: Plan) -> Uniform:
    """Row by row the best of plain rounding, compensated rounding and (where asked) learned rounding, each as it will
    be stored. Where each weight is alone, a weighted least-squares grid is the answer to all three."""
    parts = [_part(sight, plan, slice(at, at + ROWS_MAX)) for at in range(0, len(sight.target), ROWS_MAX)]
    grid = Grid(
        np.concatenate([part.scales for part, _ in parts]), np.concatenate([part.offsets for part, _ in parts]),
        plan.bits, parts[0][0].block, plan.whole,
    )  # fmt: skip
    return grid.form(np.concatenate([codes for _, codes in parts]))


def _part(sight: Sight, plan: Plan, rows: slice) -> tuple[Grid, Array]:
    weight, target = sight.task.weight[rows].astype(np.float64), sight.target[rows]
    block = min(plan.block or weight.shape[1], weight.shape[1])
    best = plain(weight, plan.bits, block, whole=plan.whole, symmetric=plan.symmetric).stored()
    best_codes = best.all_codes(weight)
    least = sight.losses(best.form(best_codes).decode(), rows)
    for grid, codes in _tries(target, sight.hessian, plan, block, alone=sight.diagonal):
        stored = grid.stored()
        losses = sight.losses(stored.form(codes).decode(), rows)
        better = losses < least
        best, best_codes = best.rows(better, stored), np.where(better[:, None], codes, best_codes)
        least = np.minimum(losses, least)
    return best, best_codes


def _tries(target: Array, hessian: Hessian, plan: Plan, block: int, *, alone: bool) -> list[tuple[Grid, Array]]:
    matrix = hessian.matrix
    grid = fitted(target, np.diagonal(matrix), plan.bits, block, whole=plan.whole, symmetric=plan.symmetric)
    if alone:
        return [(grid, grid.all_codes(target))]
    learned = grid.copy()
    codes = compensated(target, hessian, grid, by_weight=plan.by_weight)
    if plan.sweeps:
        codes = descended(target, matrix, grid, codes, plan.sweeps)
    found = [(grid, codes)]
    if plan.steps:
        codes = annealed(target, matrix, learned, plan.steps)
        found.append((learned, descended(target, matrix, learned, codes, max(plan.sweeps, 1))))
    return found
