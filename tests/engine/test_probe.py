from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tidemill.core.errors import RefusedByEngine
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.engine.probe import keeps_rows_apart


class Computing:
    """A real small engine: one function over the whole of its input."""

    def __init__(self, function: Callable[[Array], Array], datatype: str = "FP32") -> None:
        self.signature = Signature((TensorSpec("x", datatype, (-1, -1)),), (TensorSpec("y", datatype, (-1, -1)),))
        self._function = function

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": self._function(inputs["x"])}

    def close(self) -> None:
        return


def softmax_over_rows(x: Array) -> Array:
    raised = np.exp(x - x.max(axis=0, keepdims=True))
    return np.asarray(raised / raised.sum(axis=0, keepdims=True))


def quantised_by_the_largest(x: Array) -> Array:
    scale = np.abs(x).max() / 127
    return np.asarray(np.round(x / scale) * scale).astype(x.dtype)


def refusing(x: Array) -> Array:
    raise RefusedByEngine("not these")


def refusing_long_ones(x: Array) -> Array:
    return x if x.shape[1] == 1 else refusing(x)


@pytest.mark.parametrize("function", [lambda x: x / 2, np.tanh, refusing, refusing_long_ones])
def test_rows_that_do_not_know_each_other_are_apart(function: Callable[[Array], Array]) -> None:
    assert keeps_rows_apart(Computing(function))


@pytest.mark.parametrize(
    "function",
    [softmax_over_rows, quantised_by_the_largest, lambda x: x - x.mean(axis=0), lambda x: x[:1], lambda x: x.sum()],
)
def test_rows_that_do_are_not(function: Callable[[Array], Array]) -> None:
    assert not keeps_rows_apart(Computing(function))


@pytest.mark.parametrize("datatype", ["INT64", "BOOL", "BYTES", "FP16"])
def test_every_datatype_can_be_asked(datatype: str) -> None:
    assert keeps_rows_apart(Computing(lambda x: x, datatype))
