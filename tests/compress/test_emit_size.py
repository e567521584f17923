"""What is emitted is small in the file and stays small when onnxruntime has optimised it; constants are kept once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tidemill.compress.emit import emit
from tidemill.compress.emit.grid import EXACT, signed, snap, snapped
from tidemill.compress.emit.packing import codes_in_a_byte, pack, unpack, width_for
from tidemill.compress.forms import Activation, Form, Uniform
from tidemill.compress.graph import Graph
from tidemill.core.errors import RefusedLayer

from . import layered

rng = np.random.default_rng(11)
SIDE = 128
WEIGHT = rng.standard_normal((SIDE, 384)).astype(np.float32)
KERNELS = rng.standard_normal((64, 64 * 9)).astype(np.float32)


def optimised(graph: Graph, folder: Path) -> onnx.ModelProto:
    """What onnxruntime makes of it and keeps in memory."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(graph.to_model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def constant_bytes(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(each).nbytes for each in model.graph.initializer)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


FORMS = {name: form for name, form in layered.forms(WEIGHT).items() if name != "dense"}


@pytest.mark.parametrize("name", FORMS)
def test_a_product_takes_hardly_more_than_its_form_on_disk_and_a_byte_a_weight_in_memory(
    name: str, tmp_path: Path
) -> None:
    form = FORMS[name]
    graph = layered.graph_of("MatMul", WEIGHT.T.copy())
    emit(graph, graph.layers()[0], form)
    whole_bits = {"3": 4 / 3, "5": 8 / 5}.get(name, 1.0)
    if "fractional blocks" in name:
        return  # sums over blocks, which are for large layers
    if name != "4 odd blocks":  # kept as bytes: no kernel knows them
        assert graph.size_bytes < form.size_bytes * whole_bits * 1.12 + 5120
    assert constant_bytes(optimised(graph, tmp_path)) < WEIGHT.size * 1.4 + 8192


@pytest.mark.parametrize("name", ["binary", "binary blocks", "halves", "halves in blocks", "planes"])
def test_one_bit_a_weight_is_one_bit_on_disk(name: str) -> None:
    graph = layered.graph_of("MatMul", WEIGHT.T.copy())
    emit(graph, graph.layers()[0], FORMS[name])
    bits = 2 if name == "planes" else 1
    codes = [array for name, array in graph.arrays.items() if "packed" in name]
    assert sum(array.nbytes for array in codes) == WEIGHT.size * bits // 8


@pytest.mark.parametrize("name", [name for name in layered.NAMES if name != "dense"])
def test_a_convolution_stays_at_a_byte_a_weight(name: str, tmp_path: Path) -> None:
    graph = layered.graph_of("Conv", KERNELS.reshape(64, 64, 3, 3))
    emit(graph, graph.layers()[0], layered.forms(KERNELS)[name])
    assert constant_bytes(optimised(graph, tmp_path)) < KERNELS.size * (2.6 if "two blocks" in name else 1.5) + 4096


def test_quantised_inputs_make_integer_convolutions_and_products(tmp_path: Path) -> None:
    graph = two_convolutions()
    rounded = Activation(0.02, 128)
    for layer in graph.layers():
        form = layered.uniform(graph.weight(layer), 4 if layer.op == "Conv" else 8, symmetric=True)
        emit(graph, layer, form, rounded if layer.name == "first" else Activation(0.02, 0))
    found = operators(optimised(graph, tmp_path))
    assert found["QLinearConv"] >= 1
    assert found["MatMulIntegerToFloat"] == 1


def test_dynamic_inputs_make_integer_products(tmp_path: Path) -> None:
    graph = layered.graph_of("Gemm", WEIGHT.T.copy(), WEIGHT[:, 0].copy())
    emit(graph, graph.layers()[0], layered.uniform(WEIGHT, 8, symmetric=True), Activation(dynamic=True))
    assert operators(optimised(graph, tmp_path)).keys() & {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def test_layers_that_share_an_input_share_its_rounding_and_layers_that_share_a_weight_its_codes() -> None:
    graph = siblings()
    rounded = Activation(0.04, 128)
    for layer in reversed(graph.layers()):
        emit(graph, layer, layered.uniform(graph.weight(layer), 8, symmetric=True), rounded)
    found = operators(graph.to_model())
    assert found["QuantizeLinear"] == 1
    assert sum(array.nbytes for array in graph.arrays.values()) < 2 * SIDE * SIDE + 4 * SIDE * 2 + 4096
    graph.session()
    x = rng.standard_normal((3, SIDE)).astype(np.float32)
    before = siblings().session().run(None, {"x": x})[0]
    assert layered.relative(graph.session().run(None, {"x": x})[0], before) < 0.02


def test_a_new_bias_goes_with_the_form() -> None:
    for op, weight in (
        ("MatMul", WEIGHT.T.copy()),
        ("Gemm", WEIGHT.T.copy()),
        ("Conv", WEIGHT.reshape(SIDE, -1, 2, 2)),
    ):
        graph = layered.graph_of(op, weight)
        form = layered.uniform(graph.weight(graph.layers()[0]), 8, symmetric=True)
        shape = (2, 96, 4, 4) if op == "Conv" else (2, 384)
        x = rng.standard_normal(shape).astype(np.float32)
        without = graph.copy()
        emit(without, without.layers()[0], form)
        bias = rng.standard_normal(SIDE).astype(np.float32)
        emit(graph, graph.layers()[0], form, None, bias)
        added = bias[:, None, None] if op == "Conv" else bias
        got, plain = (each.session().run(None, {"x": x})[0] for each in (graph, without))
        np.testing.assert_allclose(got, plain + added, atol=1e-4)


def test_a_form_of_another_shape_is_refused() -> None:
    graph = layered.graph_of("MatMul", WEIGHT.T.copy())
    with pytest.raises(RefusedLayer, match=r"\(128, 384\).*\(128, 383\)"):
        emit(graph, graph.layers()[0], layered.uniform(WEIGHT[:, 1:], 4))


def test_an_old_model_is_refused_with_what_to_do() -> None:
    graph = layered.graph_of("Conv", KERNELS.reshape(64, 64, 3, 3), opset=11)
    with pytest.raises(RefusedLayer, match=r"opset 13.*opset 11.*version_converter"):
        emit(graph, graph.layers()[0], layered.uniform(KERNELS, 8))


def two_convolutions() -> Graph:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "c"], ["d"], name="second"),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "w3", "h"], ["y"], name="third", transB=1),
    ]
    shapes = {"w1": (16, 8, 3, 3), "w2": (16, 16, 3, 3), "c": (16,), "w3": (10, 16), "h": (10,)}
    return _graph(nodes, shapes, ["n", 8, 9, 9], ["n", 10])


def siblings() -> Graph:
    """Three products of one input, two of them with one weight."""
    nodes = [helper.make_node("MatMul", ["x", weight], [f"y{at}"]) for at, weight in enumerate("aab")]
    nodes.append(helper.make_node("Sum", ["y0", "y1", "y2"], ["y"]))
    return _graph(nodes, {"a": (SIDE, SIDE), "b": (SIDE, SIDE)}, ["n", SIDE], ["n", SIDE])


def _graph(
    nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], given: list[int | str], answered: list[int | str]
) -> Graph:
    fixed = np.random.default_rng(5)
    constants = [
        numpy_helper.from_array(fixed.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    whole = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, answered)], constants,
    )  # fmt: skip
    return Graph.from_model(helper.make_model(whole, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]))


# -- the arithmetic below ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from((1, 2, 4, 8)), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_unpacking_gives_back_what_was_packed(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (3, count)).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, -(-count * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, count), codes)
    np.testing.assert_array_equal(codes_in_a_byte(bits)[packed].reshape(3, -1)[:, :count], codes)


@settings(deadline=None)
@given(st.integers(1, 256))
def test_a_width_is_the_least_that_holds_the_levels(levels: int) -> None:
    bits = width_for(levels)
    assert 2**bits >= levels
    assert bits == 1 or 2 ** (bits // 2) < levels


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1), st.sampled_from((-3.0, 0.0, 3.0)))
def test_a_snapped_value_is_within_one_step_of_eight_bits(levels: int, seed: int, shift: float) -> None:
    values = (np.random.default_rng(seed).standard_normal((4, levels)) + shift).astype(np.float32)
    codes, scales, zeros, error = snap(values, 8)
    got = (codes.astype(np.float32) - zeros[:, None].astype(np.float32)) * scales[:, None]
    span = np.maximum(values.max(1), 0) - np.minimum(values.min(1), 0)
    assert (np.abs(got - values).max(1) <= span / 255 + 1e-6).all()
    assert error <= 1 / 255
    codes, scales = signed(values)
    assert (np.abs(codes * scales[:, None] - values).max(1) <= np.abs(values).max(1) / 127 + 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(st.sampled_from((2, 4)), st.integers(0, 2**32 - 1))
def test_values_that_lie_on_a_coarse_grid_stay_on_it(bits: int, seed: int) -> None:
    own = np.random.default_rng(seed)
    form = Uniform(
        np.tile(np.arange(2**bits, dtype=np.uint8), (5, 1)), own.uniform(0.01, 9, (5, 1)).astype(np.float32),
        own.integers(0, 2**bits, (5, 1)).astype(np.uint8), bits,
    )  # fmt: skip
    values = form.decode()
    codes, scales, zeros, found = snapped(values)
    assert found <= bits
    got = (codes.astype(np.float32) - zeros[:, None].astype(np.float32)) * scales[:, None]
    span = values.max(1) - values.min(1)
    assert (np.abs(got - values).max(1) <= EXACT * span).all()


def test_forms_are_a_complete_set() -> None:
    kinds = {type(form) for form in layered.forms(WEIGHT).values()}
    assert kinds == set(Form.__args__)
