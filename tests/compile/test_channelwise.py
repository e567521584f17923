"""Weights in int8 by rows: codes, what shares a scale, and a graph that is rewritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from openvino import opset13 as opset

from tidemill.compile import channelwise
from tidemill.core.tensor import Array

WIDTH, ROWS, BLOCK = 64, 8, 32


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(-1e3, 1e3, width=32)))
def test_codes_are_within_half_a_step_of_what_they_stand_for(rows: Array) -> None:
    codes, scales = channelwise.quantise(rows)
    step = scales.astype(np.float32)
    assert codes.dtype == np.int8
    assert codes.min() >= -127  # symmetric
    far = np.abs(codes * step - rows)
    assert (far <= step * (0.5 + 127 * 2**-10) + 127 * 2**-24).all()  # a scale is rounded to float16 itself


@pytest.mark.parametrize(
    ("widths", "share"), [({576, 1536}, 192), ({4096, 11008}, 128), ({96}, 96), ({64, 192}, 64), ({7, 64}, 0)]
)
def test_as_many_activations_share_a_scale_as_divide_all_products(widths: set[int], share: int) -> None:
    assert channelwise.sharing(widths) == share


def graph(codes: Array, zeros: Array, scales: Array) -> openvino.Model:
    """Rows of 4 bits in blocks, as openvino-genai reads a GGUF, that a product and an embedding read; and a product of
    two inputs."""
    held = openvino.Tensor(openvino.Type.u4, openvino.Shape(list(codes.shape)))  # one of an array does not hold it
    held.data[:] = _packed(codes)
    packed = opset.constant(held)
    bare = opset.subtract(opset.convert(packed, "f16"), opset.constant(zeros.astype(np.float16)))
    blocks = opset.multiply(bare, opset.constant(scales.astype(np.float16)))
    rows = opset.convert(opset.reshape(blocks, opset.constant(np.array([ROWS, WIDTH], np.int64)), False), "f32")
    inputs = opset.parameter([-1, WIDTH], np.float32, name="inputs")
    tokens = opset.parameter([-1], np.int64, name="tokens")
    product = opset.matmul(inputs, rows, False, True)
    embedded = opset.gather(rows, tokens, opset.constant(np.int64(0)))
    return openvino.Model([product, embedded, opset.matmul(inputs, inputs, False, True)], [inputs, tokens])


def _packed(codes: Array) -> Array:
    flat = codes.reshape(-1).astype(np.uint8)
    return np.asarray(flat[0::2] | flat[1::2] << 4)


@pytest.fixture
def made() -> tuple[openvino.Model, Array]:
    random = np.random.default_rng(1)
    codes = random.integers(0, 16, (ROWS, WIDTH // BLOCK, BLOCK))
    zeros = random.integers(0, 16, (ROWS, WIDTH // BLOCK, 1))
    scales = random.uniform(0.01, 0.1, (ROWS, WIDTH // BLOCK, 1)).astype(np.float16)
    return graph(codes, zeros, scales), ((codes - zeros) * scales.astype(np.float32)).reshape(ROWS, WIDTH)


def answers(model: openvino.Model) -> list[Array]:
    exact: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino.Core().compile_model(model, "CPU", exact)
    given = np.random.default_rng(2).normal(size=(3, WIDTH)).astype(np.float32)
    found = compiled({"inputs": given, "tokens": np.array([5, 0])})
    return [np.array(found[port]) for port in compiled.outputs]


def test_a_graph_that_was_rewritten_answers_as_before_but_for_the_rounding(made: tuple[openvino.Model, Array]) -> None:
    model, rows = made
    before = answers(model)
    assert channelwise.rewrite(model) == 1  # the weights that two read, and nothing of the product of two inputs
    after = answers(model)
    step = np.abs(rows).max() / 127
    assert np.abs(after[1] - before[1]).max() <= step * 0.6  # the embedding is of the same codes
    assert np.abs(after[0] - before[0]).max() <= step * 0.6 * WIDTH
    assert (after[2] == before[2]).all()
    constants = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    assert [tuple(each.shape) for each in constants if each.get_element_type() == openvino.Type.i8] == [(ROWS, WIDTH)]
    assert model.get_rt_info(["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]).value == "64"


def test_what_is_known_to_have_been_rounded_is_put_back(made: tuple[openvino.Model, Array]) -> None:
    model, rows = made
    true = (rows + 0.25).astype(np.float32)
    seen = []

    def take(found: Array) -> Array:
        seen.append(found)
        return true

    assert channelwise.restore(model, take) == 1
    (found,) = seen
    assert np.allclose(found, rows, atol=1e-3)
    assert np.allclose(answers(model)[1], true[[5, 0]], rtol=1e-3)
    assert channelwise.restore(model, lambda rows: None) == 0
