"""Small ONNX models that benchmarks make themselves, laid out as a repository; the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

MLP_WIDTHS = (64, 1024, 1024, 10)
PICTURE = (3, 224, 224)
ECHO_WIDTH = 16


def mlp(widths: Sequence[int] = MLP_WIDTHS) -> ModelProto:
    """A perceptron with ReLU between its layers; FP32 `x` [N, 64] to `y` [N, 10]. Its weights are drawn from a seed."""
    random = np.random.default_rng(64)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    before = "x"
    for place, (rows, columns) in enumerate(pairwise(widths)):
        last = place == len(widths) - 2
        matrix = random.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))
        weights += [
            numpy_helper.from_array(matrix, f"w{place}"),
            numpy_helper.from_array(random.standard_normal(columns, np.float32), f"b{place}"),
        ]
        after = "y" if last else f"h{place}"
        nodes.append(helper.make_node("Gemm", [before, f"w{place}", f"b{place}"], [after]))
        if not last:
            nodes.append(helper.make_node("Relu", [after], [f"r{place}"]))
            before = f"r{place}"
    return _model(nodes, ["n", widths[0]], ["n", widths[-1]], weights)


def corner() -> ModelProto:
    """FP32 `x` [N, 3, 224, 224] to its first pixel, `y` [N, 3, 1, 1]: next to nothing to compute on a whole picture."""
    ends = [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in
            (("starts", [0, 0]), ("ends", [1, 1]), ("axes", [2, 3]))]  # fmt: skip
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])
    return _model([node], ["n", *PICTURE], ["n", PICTURE[0], 1, 1], ends)


def echo() -> ModelProto:
    """FP32 `x` [N, 16] to itself."""
    return _model([helper.make_node("Identity", ["x"], ["y"])], ["n", ECHO_WIDTH], ["n", ECHO_WIDTH], [])


def lay_out(folder: Path, **models: ModelProto) -> dict[str, Path]:
    """DIR/NAME/1/model.onnx of each; returns the files by name."""
    files = {}
    for name, model in models.items():
        place = folder / name / "1"
        place.mkdir(parents=True, exist_ok=True)
        files[name] = place / "model.onnx"
        files[name].write_bytes(model.SerializeToString())
    return files


def _model(
    nodes: Sequence[NodeProto], takes: list[Any], gives: list[Any], weights: Sequence[TensorProto]
) -> ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)]
    graph = helper.make_graph(nodes, "made", inputs, outputs, weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
