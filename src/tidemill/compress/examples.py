"""What a model answered before and after, in words, for a few held-out rows; pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.compress.report.facts import Example
from tidemill.core.tensor import Array, Tensors

WORST, TYPICAL = 5, 3
GIVEN_MAX = 160
VALUES = 4
CLASSES_MAX = 10_000
LIKENESS_ROWS_MAX = 20_000


def examples(
    given: Sequence[str], before: Tensors, after: Tensors, per_row: Array, labels: Array | None, classes: Sequence[str]
) -> tuple[Example, ...]:
    """The rows that lost most, and some in the middle. `per_row` is the metric after."""
    order = np.argsort(per_row, kind="stable")
    middle = order[len(order) // 2 - TYPICAL // 2 :][:TYPICAL] if len(order) > WORST + TYPICAL else order[:0]
    chosen = list(dict.fromkeys([*order[:WORST].tolist(), *middle.tolist()]))
    one, other = (np.asarray(next(iter(outputs.values()))) for outputs in (before, after))
    return tuple(
        Example(
            _given(given, row, labels, classes),
            _answer(one, row, given, classes, labels),
            _answer(other, row, given, classes, labels),
            float(per_row[row]),
        )
        for row in chosen
    )


def _given(given: Sequence[str], row: int, labels: Array | None, classes: Sequence[str]) -> str:
    text = _cut(given[row]) if row < len(given) and given[row] else f"row {row}"
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub":
        text += f" (labelled {_class(int(labels[row]), classes)})"
    return text


def _answer(outputs: Array, row: int, given: Sequence[str], classes: Sequence[str], labels: Array | None) -> str:
    """A class with its share, the nearest other row of an embedding, or the first values."""
    answer = outputs[row]
    judged = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub"
    if answer.ndim == 1 and 1 < answer.size <= CLASSES_MAX and (judged or classes):
        shares = _shares(answer)
        place = int(np.argmax(answer))
        return f"{_class(place, classes)} ({shares[place]:.1%})"
    flat = outputs.reshape(len(outputs), -1)
    if answer.ndim == 1 and answer.size >= 16 and 2 < len(outputs) <= LIKENESS_ROWS_MAX and flat.dtype.kind == "f":
        lengths = np.linalg.norm(flat, axis=1)
        likeness = (flat @ flat[row]) / np.where(lengths > 0, lengths, 1) / (lengths[row] or 1)
        likeness[row] = -np.inf
        near = int(np.argmax(likeness))
        said = _cut(given[near], 48) if near < len(given) and given[near] else f"row {near}"
        return f"nearest: {said} ({likeness[near]:.3f})"
    values = ", ".join(
        f"{value:.4g}" if outputs.dtype.kind in "fiub" else _cut(str(value), 24) for value in flat[row][:VALUES]
    )
    return values + (" …" if flat.shape[1] > VALUES else "")


def _shares(answer: Array) -> Array:
    """Softmax, unless the model gives shares already."""
    values = answer.astype(np.float64)
    if values.min() >= 0 and abs(values.sum() - 1) < 1e-3:
        return values
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _class(place: int, classes: Sequence[str]) -> str:
    return classes[place] if 0 <= place < len(classes) else f"class {place}"


def _cut(text: str, most: int = GIVEN_MAX) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
