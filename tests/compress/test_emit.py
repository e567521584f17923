"""Every form of every kind of layer computes what it decodes to, on onnxruntime, OpenVINO and the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.compress import reference
from tidemill.compress.emit import Emission, emit
from tidemill.compress.forms import Activation, Form
from tidemill.compress.graph import Graph
from tidemill.core.tensor import Array

from . import layered
from .layered import relative

ROUNDED_INPUT = 0.015
"""What 8 bits in a layer's input may do to its output."""
SNAPPED = 0.01
"""What rounding arbitrary values to 8 bits may do."""
EXACT = 1e-5
DIFFERENT = ("4", "4 blocks", "8 symmetric", "8", "16 values", "planes", "halves", "4 fractional", "8 fractional")
FLOAT_INPUT = Emission(accuracy_level=1)
PORTABLE = Emission(fold=False)

rng = np.random.default_rng(7)
OUT, COLUMNS = 24, 72
WEIGHT = rng.standard_normal((OUT, COLUMNS)).astype(np.float32)
BIAS = rng.standard_normal(OUT).astype(np.float32)
X = rng.standard_normal((5, COLUMNS)).astype(np.float32)
PICTURE = rng.standard_normal((2, 8, 7, 6)).astype(np.float32)


def run(graph: Graph, x: Array) -> Array:
    return np.asarray(graph.session(threads=1).run(None, {"x": x})[0])


def run_openvino(graph: Graph, x: Array, folder: Path) -> Array:
    ov = pytest.importorskip("openvino")
    path = folder / "model.onnx"
    graph.write(path)
    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled({"x": x})[0])


def emitted(graph: Graph, form: Form, *args: Any) -> Graph:
    emit(graph, graph.layers()[0], form, *args)
    return graph


def is_arbitrary(name: str) -> bool:
    return "values" in name or name.startswith("planes") or "fractional" in name


@pytest.mark.parametrize("name", layered.NAMES)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Left"])
def test_product_with_a_float_input_is_the_forms_own(op: str, name: str) -> None:
    form = layered.forms(WEIGHT)[name]
    graph = layered.graph_of("Gemm", WEIGHT, BIAS, transB=1) if op == "Gemm" else None
    graph = graph or layered.graph_of(op, WEIGHT if op == "Left" else WEIGHT.T.copy())
    x = X.T.copy() if op == "Left" else X
    emitted(graph, form, None, None, FLOAT_INPUT)
    wanted = form.decode() @ X.T
    wanted = wanted if op == "Left" else wanted.T + (BIAS if op == "Gemm" else 0)
    exact = not is_arbitrary(name) or (op != "Left" and name.startswith(("4 fractional", "8 fractional")))
    bound = EXACT if exact else SNAPPED
    assert relative(run(graph, x), wanted) < bound
    assert relative(reference.run(graph, {"x": x})["y"], wanted) < bound


@pytest.mark.parametrize("name", layered.NAMES)
def test_product_by_default_is_within_what_rounding_the_input_costs(name: str) -> None:
    form = layered.forms(WEIGHT)[name]
    graph = emitted(layered.graph_of("MatMul", WEIGHT.T.copy()), form)
    assert relative(run(graph, X), X @ form.decode().T) < ROUNDED_INPUT


@pytest.mark.parametrize("name", layered.NAMES)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv", "Gather"])
def test_portable_form_is_the_same_on_openvino(op: str, name: str, tmp_path: Path) -> None:
    form = layered.forms(WEIGHT)[name]
    graph, x = {
        "MatMul": (layered.graph_of("MatMul", WEIGHT.T.copy()), X),
        "Gemm": (layered.graph_of("Gemm", WEIGHT.T.copy(), BIAS), X),
        "Conv": (layered.graph_of("Conv", WEIGHT.reshape(OUT, 8, 3, 3), BIAS, pads=[1, 1, 1, 1]), PICTURE),
        "Gather": (layered.graph_of("Gather", WEIGHT), np.array([[3, 0], [23, 3]])),
    }[op]
    emitted(graph, form, None, None, PORTABLE)
    assert relative(run_openvino(graph, x, tmp_path), reference.run(graph, {"x": x})["y"]) < ROUNDED_INPUT


@pytest.mark.parametrize("name", layered.NAMES)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("emission", [Emission(), PORTABLE], ids=["folded", "portable"])
def test_convolution_is_the_forms_own(name: str, groups: int, emission: Emission) -> None:
    weight = WEIGHT[:, : 72 // groups].copy()
    form = layered.forms(weight)[name]
    kernel = (OUT, 8 // groups, 3, 3)
    make = {"pads": [1, 1, 1, 1], "group": groups, "strides": [2, 1]}
    dense = layered.graph_of("Conv", form.decode().reshape(kernel), BIAS, **make)
    graph = emitted(layered.graph_of("Conv", weight.reshape(kernel), BIAS, **make), form, None, None, emission)
    wanted = run(dense, PICTURE)
    bound = SNAPPED if is_arbitrary(name) else EXACT
    assert relative(run(graph, PICTURE), wanted) < bound
    assert relative(reference.run(graph, {"x": PICTURE})["y"], wanted) < bound


@pytest.mark.parametrize("name", layered.NAMES)
def test_embedding_is_exactly_the_forms_rows(name: str) -> None:
    form = layered.forms(WEIGHT)[name]
    graph = emitted(layered.graph_of("Gather", WEIGHT, opset=11), form)
    for indices in (np.array([[3, 0, 23], [3, 1, -1]]), np.array([[5]])):
        wanted = form.decode()[indices]
        np.testing.assert_allclose(run(graph, indices), wanted, atol=1e-6)
        np.testing.assert_allclose(reference.run(graph, {"x": indices})["y"], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "activation",
    [
        Activation(0.03, 128),
        Activation(0.02, 0),
        Activation(0.4, 8, bits=4),
        Activation(0.5, 1, bits=2),
        Activation(0.001, 2000, bits=12),
        Activation(2.0, 0.5, bits=1),
    ],
    ids=["8 bits", "8 bits unsigned", "4 bits", "2 bits", "12 bits", "plus or minus 1"],
)
@pytest.mark.parametrize(
    "name",
    ["dense", "4 blocks", "4", "8 symmetric", "8", "16 values", "planes", "halves", "4 fractional", "8 fractional"],
)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv", "Left"])
def test_input_is_rounded_as_asked(op: str, name: str, activation: Activation) -> None:
    form = layered.forms(WEIGHT)[name]
    kernel = (OUT, 8, 3, 3)
    if op == "Conv":
        graph, x = layered.graph_of("Conv", WEIGHT.reshape(kernel), BIAS), PICTURE
        wanted = run(layered.graph_of("Conv", form.decode().reshape(kernel), BIAS), activation.apply(PICTURE))
    elif op == "Left":
        graph, x = layered.graph_of("Left", WEIGHT), X.T.copy()
        wanted = form.decode() @ activation.apply(x)
    else:
        graph, x = layered.graph_of(op, WEIGHT.T.copy(), BIAS if op == "Gemm" else None), X
        wanted = activation.apply(X) @ form.decode().T + (BIAS if op == "Gemm" else 0)
    emitted(graph, form, activation, None, FLOAT_INPUT)
    bound = 2 * SNAPPED if is_arbitrary(name) else 1e-4
    assert relative(reference.run(graph, {"x": x})["y"], wanted) < bound
    assert relative(run(graph, x), wanted) < bound


@pytest.mark.parametrize(
    "name",
    ["4", "8 symmetric", "8", "16 values", "planes", "4 blocks", "dense", "halves", "4 fractional", "8 fractional"],
)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
def test_dynamic_input_costs_what_8_bits_cost(op: str, name: str) -> None:
    form = layered.forms(WEIGHT)[name]
    activation = Activation(dynamic=True)
    kernel = (OUT, 8, 3, 3)
    if op == "Conv":
        graph, x = layered.graph_of("Conv", WEIGHT.reshape(kernel), BIAS, pads=[1, 1, 1, 1]), PICTURE
        wanted = run(layered.graph_of("Conv", form.decode().reshape(kernel), BIAS, pads=[1, 1, 1, 1]), PICTURE)
    else:
        graph, x = layered.graph_of(op, WEIGHT.T.copy(), BIAS if op == "Gemm" else None), X
        wanted = X @ form.decode().T + (BIAS if op == "Gemm" else 0)
    emitted(graph, form, activation)
    assert relative(run(graph, x), wanted) < ROUNDED_INPUT + SNAPPED
    assert relative(reference.run(graph, {"x": x})["y"], wanted) < ROUNDED_INPUT + SNAPPED
