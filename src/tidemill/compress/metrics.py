"""How good a model's answers are, row by row: accuracy, agreement, cosine, Pearson's correlation, shared neighbours.

Pure; runs in the command line's process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from tidemill.compress import user_code
from tidemill.core.errors import BadData, MetricFailed
from tidemill.core.tensor import Array, Tensors

MetricCall: TypeAlias = Callable[[Tensors, Tensors, Array | None], Array]
"""(outputs, the original model's outputs, labels or None) -> a number for each row; larger is better."""

Statistic: TypeAlias = Callable[[Array, Array], Array]
"""(evidence, places [draws, rows]) -> the metric over each draw of rows."""

NEIGHBOURS: Final = 10
PAIR_ROWS_MAX: Final = 5_000
"""Pairs grow as the square of the rows."""
_BLOCK_ROWS = 512


def mean_of(evidence: Array, places: Array) -> Array:
    return np.asarray(evidence[places].mean(axis=1))


@dataclass(frozen=True, slots=True)
class Metric:
    """`call` gives a number for each row, and the metric is their mean.

    Where it is no mean, `gather` gives what it is made of (rows first), and `statistic` makes it of that.
    `every_output` hands all outputs over, not only the one that answers.
    """

    name: str
    call: MetricCall
    gather: MetricCall | None = None
    statistic: Statistic = mean_of
    every_output: bool = False


def metric(name: str | MetricCall, labels: Array | None) -> Metric:
    """A metric by its name, by "module:function", or of a function.

    "" is accuracy where there are labels of classes, else cosine. Raises `MetricFailed` for one that there is not,
    `BadData` for one that wants other labels.
    """
    if not isinstance(name, str):
        return Metric(getattr(name, "__name__", "metric"), name, every_output=True)
    classes = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub"
    match name or ("accuracy" if classes else "cosine"):
        case "accuracy":
            if not classes:
                got = "has none" if labels is None else f"has labels {labels.dtype} {list(labels.shape)}"
                raise BadData(f"accuracy wants a whole number for each row as its label, and this data {got}")
            return Metric("accuracy", accuracy)
        case "agreement":
            return Metric("agreement", agreement)
        case "cosine":
            return Metric("cosine", cosine)
        case "neighbours":
            return Metric("neighbours", neighbours)
        case "pearson":
            return _pearson(labels)
    return Metric(name, _imported(name), every_output=True)


NAMES: Final = ("accuracy", "agreement", "cosine", "neighbours", "pearson")


def answer(outputs: Tensors) -> Array:
    return next(iter(outputs.values()))


def accuracy(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """1 where the largest logit is the label's."""
    return np.asarray(_largest(answer(outputs)) == labels, np.float64)


def agreement(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """1 where the largest logit is the one that was the largest; the share of them, where a row has several."""
    same = _largest(answer(outputs)) == _largest(answer(reference))
    return np.asarray(same.reshape(len(same), -1).mean(axis=1), np.float64)


def _largest(logits: Array) -> Array:
    """Of one logit: whether it is above 0."""
    if logits.ndim < 2 or logits.shape[-1] == 1:
        return np.asarray(logits.reshape(len(logits)) > 0, np.int64)
    return np.asarray(logits.argmax(axis=-1))


def cosine(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """Of each row's answer to what it was; 1 where both are nothing but zeros."""
    ours, theirs = _flat(answer(outputs)), _flat(answer(reference))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    same = (ours == theirs).all(axis=1)
    return np.where(same, 1.0, np.einsum("ij,ij->i", ours, theirs) / np.where(lengths > 0, lengths, 1.0))


def neighbours(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """Share of each row's nearest rows by cosine that were its nearest: of 10, or of half of the others if fewer."""
    ours, theirs = _unit(answer(outputs)), _unit(answer(reference))
    rows = len(ours)
    if rows < 3:
        raise BadData(f"neighbours want three rows or more held out, there are {rows}")
    count = min(NEIGHBOURS, max(1, (rows - 1) // 2))
    shared = np.empty(rows)
    for start in range(0, rows, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        near, were = (_nearest(every[block] @ every.T, start, count) for every in (ours, theirs))
        shared[block] = [len(set(a) & set(b)) / count for a, b in zip(near.tolist(), were.tolist(), strict=True)]
    return shared


def _nearest(likeness: Array, start: int, count: int) -> Array:
    here = np.arange(len(likeness))
    likeness[here, start + here] = -np.inf
    return np.argpartition(-likeness, count - 1, axis=1)[:, :count]


def _flat(array: Array) -> Array:
    return np.asarray(array.reshape(len(array), -1), np.float64)


def _unit(array: Array) -> Array:
    flat = _flat(array)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(lengths > 0, lengths, 1.0)


# -- Pearson's correlation ---------------------------------------------------------------------------------------------


def _pearson(labels: Array | None) -> Metric:
    """Of labels of pairs [rows, rows] with the answers' cosines, or of labels [rows] with the answers.

    Where there are no labels, of each answer with what it was.
    """
    if labels is None:
        return Metric("pearson", _pearson_of_answers)
    if labels.dtype.kind not in "biuf":
        raise BadData(f"pearson wants numbers as labels, and these are {labels.dtype}")
    if labels.ndim == 2 and labels.shape[0] == labels.shape[1]:
        if not 3 <= len(labels) <= PAIR_ROWS_MAX:
            raise BadData(f"pearson over pairs wants 3 to {PAIR_ROWS_MAX} rows held out, there are {len(labels)}")
        return Metric("pearson", _pairs_by_row, _pairs, _pairs_statistic)
    if labels.ndim != 1:
        raise BadData(f"pearson wants labels [rows] or [rows, rows], and these are {list(labels.shape)}")
    return Metric("pearson", _scores_by_row, _scores, _scores_statistic)


def _pearson_of_answers(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    ours, theirs = _flat(answer(outputs)), _flat(answer(reference))
    centred = {"ours": ours - ours.mean(axis=1, keepdims=True), "theirs": theirs - theirs.mean(axis=1, keepdims=True)}
    return cosine({"ours": centred["ours"]}, {"theirs": centred["theirs"]}, None)


def _pairs(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """[rows, rows, 2]: the answers' cosine, and the label."""
    unit = _unit(answer(outputs))
    return np.stack([unit @ unit.T, np.asarray(labels, np.float64)], axis=2)


def _pairs_statistic(evidence: Array, places: Array) -> Array:
    upper = np.triu_indices(places.shape[1], 1)
    found = []
    for draw in places:
        one, other = draw[upper[0]], draw[upper[1]]
        # A row that was drawn twice says nothing by being like itself.
        apart = one != other
        found.append(_correlation(*evidence[one[apart], other[apart]].T))
    return np.array(found)


def _pairs_by_row(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """The correlation over each row's own pairs."""
    pairs = _pairs(outputs, reference, labels)
    return np.array([_correlation(*np.delete(row, index, axis=0).T) for index, row in enumerate(pairs)])


def _scores(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """[rows, 2]: the answer, and the label."""
    scores = _flat(answer(outputs))
    if scores.shape[1] != 1:
        raise BadData(f"pearson against labels wants one number a row, and the model gives {scores.shape[1]}")
    return np.stack([scores[:, 0], np.asarray(labels, np.float64)], axis=1)


def _scores_statistic(evidence: Array, places: Array) -> Array:
    return np.array([_correlation(*evidence[draw].T) for draw in places])


def _scores_by_row(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    """Each row's share in the correlation: the product of both, in deviations from their means."""
    scores = _scores(outputs, reference, labels)
    deviation = scores.std(axis=0)
    centred = (scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return np.asarray(centred.prod(axis=1))


def _correlation(one: Array, other: Array) -> float:
    """0 where one of them is always the same: it tells nothing of the other."""
    one, other = one - one.mean(), other - other.mean()
    length = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / length if length > 0 else 0.0


def _imported(name: str) -> MetricCall:
    module, colon, function = name.partition(":")
    if not colon:
        raise MetricFailed(f"there is no metric {name!r}; known are {', '.join(NAMES)}, and module:function")
    try:
        found = user_code.found(module, function)
    except Exception as error:  # the user's own code may raise anything
        raise MetricFailed(f"the metric {name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise MetricFailed(f"the metric {name} is {type(found).__name__}, expected a function")
    call: MetricCall = found
    return call
