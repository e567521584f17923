"""One-layer graphs, forms for them, and what they must compute; for the tests of what is emitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidemill.compress.forms import Codebook, Dense, Form, Planes, Uniform
from tidemill.compress.graph import Graph
from tidemill.core.tensor import Array

FLOAT = TensorProto.FLOAT


def graph_of(op: str, weight: Array, bias: Array | None = None, opset: int = 13, **attributes: Any) -> Graph:
    """y = op(x): `weight` is what the operator stores. `op` "Left" is a MatMul with its constant on the left."""
    inputs = {"Gather": ["w", "x"], "Left": ["w", "x"]}.get(op, ["x", "w"])
    constants = [numpy_helper.from_array(weight, "w")]
    if bias is not None:
        inputs.append("b")
        constants.append(numpy_helper.from_array(bias, "b"))
    given: list[str | int] = ["n", "m"]
    answered: list[str | int] = ["n", "m", weight.shape[1]] if op == "Gather" else ["n", "m"]
    if op == "Conv":
        given, answered = ["n", weight.shape[1] * attributes.get("group", 1), "h", "v"], ["n", len(weight), "i", "j"]
    kind = TensorProto.INT64 if op == "Gather" else FLOAT
    node = helper.make_node("MatMul" if op == "Left" else op, inputs, ["y"], **attributes)
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info("x", kind, given)],
        [helper.make_tensor_value_info("y", FLOAT, answered)], constants,
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    return Graph.from_model(model)


def uniform(weight: Array, bits: int, block: int = 0, symmetric: bool = False) -> Uniform:
    """Round to nearest between each block's minimum and maximum."""
    out, columns = weight.shape
    size = min(block or columns, columns)
    count = -(-columns // size)
    padded = np.pad(weight, ((0, 0), (0, count * size - columns)), mode="edge").reshape(out, count, size)
    top = 2**bits - 1
    if symmetric:
        zeros = np.full((out, count), 2 ** (bits - 1), np.float64)
        scales = np.abs(padded).max(-1) / max(2 ** (bits - 1) - 1, 1)
    else:
        low, high = np.minimum(padded.min(-1), 0), np.maximum(padded.max(-1), 0)
        scales = np.maximum(high - low, 1e-9) / top
        zeros = np.clip(np.rint(-low / scales), 0, top)
    codes = np.clip(np.rint(padded / scales[..., None]) + zeros[..., None], 0, top)
    return Uniform(
        codes.reshape(out, -1)[:, :columns].astype(np.uint8), scales.astype(np.float32), zeros.astype(np.uint8), bits,
        block,
    )  # fmt: skip


def codebook(weight: Array, levels: int, per_row: bool = True) -> Codebook:
    """Values at even ranks."""
    ranks = (np.arange(levels) + 0.5) / levels
    values = np.quantile(weight, ranks, axis=1).T if per_row else np.quantile(weight, ranks)[None]
    codes = np.abs(weight[:, :, None] - values[:, None, :]).argmin(-1)
    return Codebook(codes.astype(np.uint8), values.astype(np.float32))


def binary(weight: Array, block: int = 0) -> Uniform:
    """Plus or minus the mean, as codes 0 and 2 around 1."""
    out, columns = weight.shape
    size = min(block or columns, columns)
    count = -(-columns // size)
    padded = np.pad(np.abs(weight), ((0, 0), (0, count * size - columns)), mode="edge").reshape(out, count, size)
    scales = padded.mean(-1).astype(np.float32)
    return Uniform(np.where(weight > 0, 2, 0).astype(np.uint8), scales, np.ones_like(scales, np.uint8), 2, block)


def planes(weight: Array, block: int = 0) -> Planes:
    first = binary(weight, block)
    return Planes((first, binary(weight - first.decode(), block)))


def fractional(weight: Array, bits: int, block: int = 0) -> Uniform:
    """Zero points between two codes."""
    form = uniform(weight, bits, block)
    return replace(form, zero_points=form.zero_points.astype(np.float32) + np.float32(0.3))


def halves(weight: Array, block: int = 0) -> Uniform:
    """Plus or minus the mean, as codes 0 and 1 around 0.5."""
    form = binary(weight, block)
    return Uniform(form.codes // 2, form.scales * 2, np.full_like(form.scales, 0.5), 1, block)


def forms(weight: Array) -> dict[str, Form]:
    return {
        "dense": Dense(weight * np.float32(0.5)),
        "2": uniform(weight, 2),
        "2 blocks": uniform(weight, 2, 32),
        "3": uniform(weight, 3),
        "4": uniform(weight, 4),
        "4 symmetric": uniform(weight, 4, 0, symmetric=True),
        "4 blocks": uniform(weight, 4, 16),
        "4 wide blocks": uniform(weight, 4, 512),
        "4 odd blocks": uniform(weight, 4, 24),
        "5": uniform(weight, 5),
        "8": uniform(weight, 8),
        "8 symmetric": uniform(weight, 8, 0, symmetric=True),
        "8 blocks": uniform(weight, 8, 32),
        "binary": binary(weight),
        "binary blocks": binary(weight, 32),
        "halves": halves(weight),
        "halves in blocks": halves(weight, 32),
        "2 fractional": fractional(weight, 2),
        "4 fractional": fractional(weight, 4),
        "4 fractional blocks": fractional(weight, 4, 16),
        "8 fractional": fractional(weight, 8),
        "8 fractional blocks": fractional(weight, 8, 32),
        "two values": codebook(weight, 2),
        "three values": codebook(weight, 3),
        "16 values": codebook(weight, 16),
        "16 values for all": codebook(weight, 16, per_row=False),
        "200 values for all": codebook(weight, 200, per_row=False),
        "planes": planes(weight),
        "planes in blocks": planes(weight, 16),
        "planes of two blocks": Planes((binary(weight), uniform(weight * 0.1, 2, 16))),
    }


NAMES = tuple(forms(np.zeros((2, 600), np.float32) + np.linspace(-1, 1, 600, dtype=np.float32)))


def relative(got: Array, wanted: Array) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
