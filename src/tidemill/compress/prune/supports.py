"""The solver of `--method unify`: the best of several supports of a layer, bettered by swaps, refitted; in workers.

Supports come from the Lasso's or the ridge's path and from the second-order search. A swap takes the weight that costs
least out and the one that wins most in; a batch of swaps stands only if the refitted layer loses less.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.compress.hessian import DAMPING, Hessian, check, hessian
from tidemill.compress.prune import obs, paths, surgeon
from tidemill.compress.prune.chosen import GROUP
from tidemill.compress.prune.obs import Pattern
from tidemill.compress.task import LayerResult, LayerTask
from tidemill.core.tensor import Array

DESCENTS = 12
"""Steps of the quick refit after a batch of swaps."""
FIRST_SHARE = 0.02
"""The first batch swaps so much of the support; each one that fails is followed by one a quarter its size."""
SECOND_ORDER_ROUNDS = 40


class Supports:
    """`Solver`. Options: `shares` {layer: share of zeros}, `path` ("lasso", "ridge"), `swaps` (batches at most), `pool`
    (how many supports are bettered), `search` ("fast" looks for no second-order support but the sweep's), `damping`."""

    def solve(self, task: LayerTask) -> LayerResult:
        check(task)
        options = task.options
        of = hessian(task.fit, float(options.get("damping", DAMPING)), centred=task.bias is not None)
        weight = task.weight.astype(np.float64)
        share = float(options["shares"].get(GROUP.sub("", task.name), 0.0))
        if share <= 0:
            return surgeon.answer(task, weight, of)
        masks = candidates(weight, of, Pattern(share), str(options["path"]), str(options["search"]) == "fast")
        mask = best(weight, of.matrix, masks, int(options["swaps"]), int(options["pool"]))
        return surgeon.answer(task, obs.refit(weight, mask, of.matrix), of)


SOLVER = Supports()


def candidates(weight: Array, of: Hessian, pattern: Pattern, path: str, fast: bool) -> list[Array]:
    """Masks of the same number of weights."""
    if path == "lasso":
        found = [paths.lasso_support(weight, of.matrix, pattern)]
    else:
        found = [paths.ridge_support(weight, of.matrix, pattern)]
    if fast:
        return [*found, obs.sweep(weight, of.upper(), pattern)[0]]
    second = obs.alternate(weight, of.matrix, pattern, SECOND_ORDER_ROUNDS)
    work = float(weight.shape[0]) * weight.shape[1] ** 3
    more = [obs.eliminate(weight, of.inverse(), pattern)] if work <= surgeon.ELIMINATE_MAX else []
    return [*found, second, *more]


def best(weight: Array, matrix: Array, masks: Sequence[Array], swaps: int, pool: int) -> Array:
    """The mask of least loss, after the `pool` best of `masks` were bettered by at most `swaps` batches each."""
    fitted = [(mask, obs.descend(weight, np.where(mask, weight, 0.0), mask, matrix, DESCENTS)) for mask in masks]
    ranked = sorted(fitted, key=lambda pair: _loss(weight, pair[1], matrix))[: max(1, pool)]
    bettered = [swap(weight, mask, now, matrix, swaps) for mask, now in ranked]
    return min(bettered, key=lambda pair: _loss(weight, pair[1], matrix))[0]


def swap(weight: Array, mask: Array, now: Array, matrix: Array, batches: int) -> tuple[Array, Array]:
    """As many weights as before, of no greater loss: the mask and the weights on it. `now` is zero outside `mask`.

    Wⱼ out costs about ŵⱼ² Hⱼⱼ, one in wins about gⱼ² / Hⱼⱼ, g = (W − Ŵ)H: both without what the others make up, which
    is why a batch is tried and not believed.
    """
    diagonal = np.diagonal(matrix)
    lost = _loss(weight, now, matrix)
    share = FIRST_SHARE
    for _ in range(batches):
        costs = np.where(mask, now**2 * diagonal, np.inf).ravel()
        wins = np.where(mask, -np.inf, ((weight - now) @ matrix) ** 2 / diagonal).ravel()
        most = min(max(1, int(share * mask.sum())), int(mask.sum()), int((~mask).sum()))
        if not most:
            break
        out = np.argsort(costs, kind="stable")[:most]
        into = np.argsort(-wins, kind="stable")[:most]
        pays = int((wins[into] > costs[out]).sum())
        if not pays:
            break
        tried = mask.copy()
        tried.ravel()[out[:pays]] = False
        tried.ravel()[into[:pays]] = True
        fitted = obs.descend(weight, np.where(tried, now, 0.0), tried, matrix, DESCENTS)
        loss = _loss(weight, fitted, matrix)
        if loss < lost:
            mask, now, lost = tried, fitted, loss
        else:
            share /= 4
    return mask, now


def _loss(weight: Array, pruned: Array, matrix: Array) -> float:
    return float(obs.loss(weight, pruned, matrix).sum())
