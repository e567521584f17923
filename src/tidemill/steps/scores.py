"""Steps from scores to what a person reads: softmax, sigmoid, the best labels, a threshold; on the steps' threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia
from tidemill.core.tensor import Array
from tidemill.steps.step import ANSWER, Function, Name, Place, Step, Values, given, take


class Softmax(Step, frozen=True, kw_only=True):
    """Scores to shares of one, over the last dimension."""

    input: Name
    output: Annotated[str, Meta(description='"": where it was')] = ""

    def apply(self, values: Values) -> Values:
        return {self.output or self.input: softmax(take(values, self.input))}


def softmax(scores: Array) -> Array:
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


class Sigmoid(Step, frozen=True, kw_only=True):
    """Scores to probabilities, each alone."""

    input: Name
    output: Annotated[str, Meta(description='"": where it was')] = ""

    def apply(self, values: Values) -> Values:
        x = take(values, self.input)
        return {self.output or self.input: np.exp(-np.logaddexp(0, -x)).astype(x.dtype)}


class Top(Step, frozen=True, kw_only=True):
    """The best classes of each row with their labels: a list of `{"label", "score"}`, best first."""

    input: Name
    k: Annotated[int, Meta(ge=1, le=10_000, description="how many")] = 5
    labels: Annotated[str, Meta(description='file of names, one a line; "" tells numbers')] = "labels.txt"
    output: Name = ANSWER

    def bind(self, place: Place) -> Function:
        return _labelled(self.input, self.output, place, self.labels, lambda row: _best(row)[: self.k])


def _best(row: Array) -> Array:
    """Places, best first; of equals the first."""
    return np.argsort(-row, kind="stable")


def _labelled(input: str, output: str, place: Place, labels: str, chosen: Callable[[Array], Array]) -> Function:
    """The `chosen` classes of each row, by their lines in the file `labels`, where there is one."""
    names = place.lines(labels) if labels else ()

    def told(row: Array) -> list[dict[str, object]]:
        return [
            {"label": names[at] if names else at, "score": round(float(row[at]), 6)} for at in map(int, chosen(row))
        ]

    def apply(values: Values) -> Values:
        scores = rows_of(take(values, input), input)
        if names and scores.shape[1] != len(names):
            raise BadMedia(f"the model gives {scores.shape[1]} scores, {labels} names {len(names)}")
        answers = [told(row) for row in scores]
        return {output: answers[0] if len(answers) == 1 else answers}

    return apply


class Threshold(Step, frozen=True, kw_only=True):
    """Every class whose score reaches `least`, best first: for models that answer several at once."""

    input: Name
    least: float = 0.5
    labels: Annotated[str, Meta(description='file of names, one a line; "" tells numbers')] = ""
    output: Name = ANSWER

    def bind(self, place: Place) -> Function:
        def reaching(row: Array) -> Array:
            best = _best(row)
            return best[row[best] >= self.least]

        return _labelled(self.input, self.output, place, self.labels, reaching)


def rows_of(array: Array, name: str) -> Array:
    """[rows, values]. Raises `BadMedia` for anything else."""
    if array.ndim == 1:
        return array[np.newaxis]
    if array.ndim != 2:
        raise BadMedia(f"{name!r} has shape {list(array.shape)}, expected [rows, classes]")
    return array


class Show(Step, frozen=True, kw_only=True):
    """Says which values are the answer: one alone, or several under their names."""

    values: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=256)]
    row: Annotated[bool, Meta(description="where there is one row, the row itself")] = False
    output: Name = ANSWER

    def apply(self, values: Values) -> Values:
        found = {name: self._shown(given(values, name)) for name in self.values}
        return {self.output: found[self.values[0]] if len(self.values) == 1 else found}

    def _shown(self, value: Any) -> Any:
        return value[0] if self.row and isinstance(value, np.ndarray | list) and len(value) == 1 else value
