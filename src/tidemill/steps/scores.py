"""Steps from scores to what a person reads: softmax, sigmoid, the best labels, a threshold; on the steps' threads."""

from __future__ import annotations

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
        names = place.lines(self.labels) if self.labels else ()

        def apply(values: Values) -> Values:
            scores = rows_of(take(values, self.input), self.input)
            if names and scores.shape[1] != len(names):
                raise BadMedia(f"the model gives {scores.shape[1]} scores, {self.labels} names {len(names)}")
            told = [[_told(int(at), row, names) for at in _best(row, self.k)] for row in scores]
            return {self.output: told[0] if len(told) == 1 else told}

        return apply


def _best(row: Array, count: int) -> Array:
    """Places, best first; of equals the first."""
    return np.argsort(-row, kind="stable")[:count]


def _told(at: int, row: Array, names: tuple[str, ...]) -> dict[str, object]:
    return {"label": names[at] if names else at, "score": round(float(row[at]), 6)}


class Threshold(Step, frozen=True, kw_only=True):
    """Every class whose score reaches `least`, best first: for models that answer several at once."""

    input: Name
    least: float = 0.5
    labels: Annotated[str, Meta(description='file of names, one a line; "" tells numbers')] = ""
    output: Name = ANSWER

    def bind(self, place: Place) -> Function:
        names = place.lines(self.labels) if self.labels else ()

        def apply(values: Values) -> Values:
            scores = rows_of(take(values, self.input), self.input)
            if names and scores.shape[1] != len(names):
                raise BadMedia(f"the model gives {scores.shape[1]} scores, {self.labels} names {len(names)}")
            told = [
                [_told(int(at), row, names) for at in _best(row, len(row)) if row[at] >= self.least] for row in scores
            ]
            return {self.output: told[0] if len(told) == 1 else told}

        return apply


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
