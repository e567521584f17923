"""Steps on vectors: pooling, length one, scaling back; pure, on the steps' threads."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from tidemill.core.errors import WrongShape
from tidemill.core.tensor import Array
from tidemill.steps.step import Name, Step, Values, take


def mean(states: Array, mask: Array) -> Array:
    """Over the tokens that are there: [N, T, D] and [N, T] give FP32 [N, D]."""
    present = mask[..., np.newaxis].astype(np.float32)
    pooled: Array = (states * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1e-9)
    return pooled


def unit(vectors: Array) -> Array:
    """FP32, of length one over the last dimension; zeros stay zeros."""
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=-1, keepdims=True))
    short: Array = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return short


class Pool(Step, frozen=True, kw_only=True):
    """The mean over the tokens that are there: [N, T, D] and a mask [N, T] give FP32 [N, D]."""

    input: Name
    mask: Name = "attention_mask"
    output: Name = "vector"

    def apply(self, values: Values) -> Values:
        states, mask = take(values, self.input), take(values, self.mask)
        if states.ndim != 3 or mask.shape != states.shape[:2]:
            raise WrongShape(
                f"{self.input!r} has shape {list(states.shape)} and {self.mask!r} {list(mask.shape)};"
                " expected [N, T, D] and [N, T]"
            )
        return {self.output: mean(states, mask)}


class Unit(Step, frozen=True, kw_only=True):
    """Vectors of length one, over the last dimension; zeros stay zeros."""

    input: Name
    output: Annotated[str, Meta(description='"": where it was')] = ""

    def apply(self, values: Values) -> Values:
        return {self.output or self.input: unit(take(values, self.input))}


class Scale(Step, frozen=True, kw_only=True):
    """x * factor + offset: what scaling before the model is taken back with."""

    input: Name
    factor: float = 1.0
    offset: float = 0.0
    output: Annotated[str, Meta(description='"": where it was')] = ""

    def apply(self, values: Values) -> Values:
        x = take(values, self.input)
        return {self.output or self.input: (x.astype(np.float64) * self.factor + self.offset).astype(np.float32)}
