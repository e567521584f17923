"""Which whole units (heads, FFN columns, channels) to drop, and how their consumers make up for it; pure functions.

A unit is dropped by dropping the columns that read it in every consumer. What is left of a consumer is fitted by least
squares: W' = W H[:,S] (H[S,S] + λI)⁻¹. Runs wherever a layer is solved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tidemill.core.tensor import Array

# Many units are dropped this share of the rest at a time: the greedy order hardly changes within so few.
BATCH_SHARE = 1 / 128
TINY = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A layer that reads the units. `weight` [out, in] and `matrix` [in, in] (damped H) are its own; `columns`
    [units, width] says which of its inputs each unit is, and all of them together are all its inputs. `scale` weighs
    its loss against that of other consumers: one over what it gives without loss, say."""

    weight: Array
    matrix: Array
    columns: Array
    scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Units in the order in which they are dropped, and the consumers' summed loss after each drop."""

    units: Array
    losses: Array

    def keep(self, count: int) -> Array:
        """The `count` units that fall last, ascending."""
        return np.sort(self.units[len(self.units) - count :])


def whole(weight: Array, matrix: Array) -> float:
    """The loss of dropping everything: what the layer gives."""
    return float(np.einsum("ij,ij->", weight @ matrix, weight))


def order(consumers: Sequence[Consumer], down_to: int = 1) -> Order:
    """Drop the unit whose loss tr(W_B ([H⁻¹]_BB)⁻¹ W_Bᵀ), summed over consumers, is least; make the rest fit; again.

    The Optimal Brain Surgeon's saliency for a block B of columns that go together (Hassibi and Stork, 1993; Kurtic,
    Frantar and Alistarh, ZipLM, 2023). `down_to` units are left undecided, and stand last in
    order of what they cost alone.
    """
    weights = [np.array(each.weight, np.float64) for each in consumers]
    inverses = [_inverse(each.matrix) for each in consumers]
    places = [np.array(each.columns) for each in consumers]
    units = np.arange(len(consumers[0].columns))
    dropped: list[int] = []
    losses: list[float] = []
    paid = 0.0
    while True:
        costs = np.zeros(len(units))
        for at, each in enumerate(consumers):
            costs += each.scale * _block_costs(weights[at], inverses[at], places[at])
        if len(units) <= down_to:
            break
        count = min(max(1, int(len(units) * BATCH_SHARE)), len(units) - down_to)
        chosen = np.argsort(costs, kind="stable")[:count]
        before = paid
        for at, each in enumerate(consumers):
            gone = places[at][chosen].ravel()
            paid += each.scale * _drop(weights, inverses, at, gone)
            places[at] = _renumber(np.delete(places[at], chosen, axis=0), gone, weights[at].shape[1] + len(gone))
        losses.extend(before + (paid - before) * (np.arange(count) + 1) / count)
        dropped.extend(units[chosen].tolist())
        units = np.delete(units, chosen)
    last = units[np.argsort(costs, kind="stable")]
    return Order(np.array([*dropped, *last.tolist()], np.intp), np.array(losses))


def fit(weight: Array, matrix: Array, columns: Array) -> Array:
    """W' [out, len(columns)]: the least loss that these input columns alone can reach. `matrix` is the damped H."""
    right = (np.asarray(weight, np.float64) @ matrix)[:, columns]
    solved = scipy.linalg.solve(matrix[np.ix_(columns, columns)], right.T, assume_a="pos", check_finite=False)
    return np.asarray(solved.T)


def _block_costs(weight: Array, inverse: Array, places: Array) -> Array:
    if places.shape[1] == 1:
        lone = places[:, 0]
        return np.asarray((weight[:, lone] ** 2).sum(axis=0) / np.maximum(np.diagonal(inverse)[lone], TINY))
    blocks = inverse[places[:, :, None], places[:, None, :]]
    of = weight[:, places].transpose(1, 2, 0)  # [units, width, out]
    return np.asarray(np.einsum("uwo,uwo->u", np.linalg.solve(blocks, of), of))


def _drop(weights: list[Array], inverses: list[Array], at: int, gone: Array) -> float:
    """Take the columns `gone` out of consumer `at`, exactly, with the others made to fit; gives what that loses."""
    weight, inverse = weights[at], inverses[at]
    rest = np.delete(np.arange(weight.shape[1]), gone)
    of = weight[:, gone]
    solved = np.linalg.solve(inverse[np.ix_(gone, gone)], np.concatenate([of.T, inverse[np.ix_(gone, rest)]], axis=1))
    across = inverse[np.ix_(rest, gone)]
    lost = float(np.einsum("ow,wo->", of, solved[:, : len(of)]))
    weights[at] = weight[:, rest] - (across @ solved[:, : len(of)]).T
    inverses[at] = inverse[np.ix_(rest, rest)] - across @ solved[:, len(of) :]
    return max(lost, 0.0)


def _renumber(places: Array, gone: Array, columns: int) -> Array:
    left = np.ones(columns, np.bool_)
    left[gone] = False
    return np.asarray((np.cumsum(left) - 1)[places])


def _inverse(matrix: Array) -> Array:
    factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, np.eye(len(matrix)), check_finite=False))
