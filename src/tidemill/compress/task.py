"""What a layer-wise solver is asked and what it answers: pure values, so that a task can run in any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tidemill.compress.forms import Activation, Form
from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What is known of a layer's inputs x of K features, over `count` rows; never the rows themselves.

    `second` is E[x xᵀ], float64 [K, K]; `mean`, `low` and `high` are [K]. `histogram` counts all elements over
    evenly spaced `edges` [bins + 1].
    """

    count: int
    second: Array
    mean: Array
    low: Array
    high: Array
    histogram: Array
    edges: Array


@dataclass(frozen=True, slots=True, eq=False)
class LayerTask:
    """One layer to compress: y = W x + b, W float32 [out, in].

    A convolution comes as its unfolded matrix (in = channels · kernel), one task for each of its groups. `weight` is
    already the target for the inputs that the compressed model gives (`pipeline.py` says how). `fit` is over the rows
    to learn from, `held` over rows that the solver must not learn from and only reports its error on. The same task,
    with the same `seed`, is always answered alike.
    """

    name: str
    weight: Array
    bias: Array | None
    fit: Moments
    held: Moments
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class LayerResult:
    """`bias` None leaves it as it was. The errors are E‖(W − Ŵ)x‖² / E‖W x‖². `damping` is what was added to H's
    diagonal, as a share of its mean. `notes` are sentences for the report (rank too low, rows left alone, …)."""

    form: Form
    bias: Array | None
    activation: Activation | None
    error_fit: float
    error_held: float
    damping: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return self.form.size_bytes + (0 if self.bias is None else self.bias.size * 4)


class Solver(Protocol):
    """`name` is the word of `--method`; registered as `solver.NAME`. Pure: no files, no clock, no global state."""

    def solve(self, task: LayerTask) -> LayerResult:
        """Raises `RefusedLayer` for what it cannot compress; the layer is then left as it is and listed."""


def output_error(weight: Array, compressed: Array, moments: Moments) -> float:
    """E‖(W − Ŵ)x‖² / E‖W x‖² under `moments.second`; 0 when W gives nothing but zeros."""
    difference = (weight - compressed).astype(np.float64)
    of = weight.astype(np.float64)
    lost = float(np.einsum("ij,ij->", difference @ moments.second, difference))
    whole = float(np.einsum("ij,ij->", of @ moments.second, of))
    return max(lost, 0.0) / whole if whole > 0 else 0.0
