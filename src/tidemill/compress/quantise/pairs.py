"""Moments of activations and of what quantising makes of them, as streaming sums.

Runs in the command line's process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Activation
from tidemill.compress.graph import Graph
from tidemill.compress.quantise.watch import Batches, Tick, runs
from tidemill.compress.task import Moments
from tidemill.core.tensor import Array


@dataclass(slots=True, eq=False)
class Pair:
    """x [K] and its quantised x̂ over `count` rows: E[x], E[x̂], and Cov[x], Cov[x, x̂], Cov[x̂], all float64."""

    count: int
    mean: Array
    mean_after: Array
    own: Array
    cross: Array
    after: Array

    @property
    def moments(self) -> Moments:
        """Of x̂ around its mean, which the bias takes up."""
        nothing = np.zeros(len(self.mean))
        return Moments(self.count, self.after, nothing, nothing, nothing, np.zeros(1), np.zeros(2))

    def loss(self, weight: Array, decoded: Array) -> float:
        """E‖W x − Ŵ x̂‖² / E‖W x‖² around the means; 0 where W x never varies."""
        of, by = weight.astype(np.float64), decoded.astype(np.float64)
        whole = float(np.einsum("ij,ij->", of @ self.own, of))
        lost = whole - 2 * float(np.einsum("ij,ij->", of @ self.cross, by))
        lost += float(np.einsum("ij,ij->", by @ self.after, by))
        return max(lost, 0.0) / whole if whole > 0 else 0.0


def pairs(
    graph: Graph, grids: Mapping[str, Activation], batches: Batches, threads: int, tick: Tick | None = None
) -> dict[str, Pair]:
    """For tensors whose features are their last axis. Products are taken in float32 a batch at a time."""
    if not grids:
        return {}
    sums: dict[str, Pair] = {}
    for values in runs(graph.session(list(grids), threads), list(grids), batches):
        for name, array in values.items():
            x = array.reshape(-1, array.shape[-1])
            after = grids[name].apply(x)
            parts = (x.sum(0, np.float64), after.sum(0, np.float64), x.T @ x, x.T @ after, after.T @ after)
            held = sums.get(name)
            if held is None:
                sums[name] = Pair(len(x), *(part.astype(np.float64) for part in parts))
                continue
            held.count += len(x)
            totals = (held.mean, held.mean_after, held.own, held.cross, held.after)
            for total, part in zip(totals, parts, strict=True):
                np.add(total, part, out=total)
        if tick is not None:
            tick()
    return {name: _around(found) for name, found in sums.items()}


def _around(sums: Pair) -> Pair:
    count = sums.count
    mean, after = sums.mean / count, sums.mean_after / count
    return Pair(
        count,
        mean,
        after,
        sums.own / count - np.outer(mean, mean),
        sums.cross / count - np.outer(mean, after),
        sums.after / count - np.outer(after, after),
    )
