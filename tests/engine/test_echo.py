from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import crafted
from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelConfig, ModelPackage
from tidemill.core.tensor import DTYPES, TensorSpec
from tidemill.engine import echo

X = TensorSpec("x", "FP32", (-1,))
Y = TensorSpec("y", "FP32", (-1,))


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_is_answered_as_it_came(datatype: str) -> None:
    engine = echo.load(crafted.echo_package(datatype=datatype), 1)
    x = np.zeros((3, 2), DTYPES[datatype])
    answer = engine.predict({"x": x, "a": x[:1]}, ())
    assert (answer["y"].shape, answer["b"].shape) == ((3, 2), (1, 2))
    assert answer["y"].dtype == x.dtype


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((), ()),
        ((X,), ()),
        ((X,), (Y, Y)),
        ((X, X), (Y, TensorSpec("z", "FP32", (-1,)))),
        ((X,), (TensorSpec("y", "FP64", (-1,)),)),
        ((TensorSpec("x", "FP8", (-1,)),), (TensorSpec("y", "FP8", (-1,)),)),
        ((TensorSpec("x", "FP32", (-2,)),), (Y,)),
        ((X, TensorSpec("x2", "FP32", (-1,))), (Y, Y)),
    ],
)
def test_declaration_that_cannot_be_kept_is_refused(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    config = ModelConfig(engine="echo", inputs=inputs, outputs=outputs)
    with pytest.raises(RefusedModel, match="nowhere"):
        echo.load(ModelPackage("m", 1, Path("nowhere"), "echo", 0, config), 1)
