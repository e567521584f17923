"""Small ONNX models for the tests of compression, and rows for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidemill.compress.forms import Dense, Uniform
from tidemill.compress.graph import Graph
from tidemill.compress.task import LayerResult, LayerTask, output_error
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str],
    constants: dict[str, Array],
    opset: int = 21,
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return made


def random(*shape: int, seed: int = 0) -> Array:
    scale = 1 / np.sqrt(max(int(np.prod(shape[1:])), 1))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def mlp(width: int = 24, hidden: int = 48) -> Any:
    """x -> MatMul+Add -> Relu -> Gemm(transB) -> Relu -> MatMul."""
    node = helper.make_node
    return model(
        [
            node("MatMul", ["x", "w1"], ["h0"], name="first"),
            node("Add", ["h0", "b1"], ["h1"], name="first_add"),
            node("Relu", ["h1"], ["h2"]),
            node("Gemm", ["h2", "w2", "b2"], ["h3"], name="second", transB=1),
            node("Relu", ["h3"], ["h4"]),
            node("MatMul", ["h4", "w3"], ["y"], name="third"),
        ],
        {"x": (FLOAT, ["batch", width])},
        ["y"],
        {
            "w1": random(hidden, width, seed=1).T.copy(),
            "b1": random(hidden, seed=2),
            "w2": random(hidden, hidden, seed=3),
            "b2": random(hidden, seed=4),
            "w3": random(10, hidden, seed=5).T.copy(),
        },
    )


def conv_net(channels: int = 8, groups: int = 2) -> Any:
    """A stem, a residual block of two convolutions, a grouped one with stride, pooling and a Gemm."""
    node = helper.make_node
    c = channels
    return model(
        [
            node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["c0"], ["r0"]),
            node("Conv", ["r0", "w1", "b1"], ["c1"], name="inner", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "w2", "b2"], ["c2"], name="outer", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Add", ["c2", "r0"], ["sum"], name="residual"),
            node("Relu", ["sum"], ["r2"]),
            node("Conv", ["r2", "w3"], ["c3"], name="grouped", group=groups, strides=[2, 2], dilations=[2, 1]),
            node("Relu", ["c3"], ["r3"]),
            node("GlobalAveragePool", ["r3"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w4", "b4"], ["y"], name="head"),
        ],
        {"x": (FLOAT, ["batch", 3, 12, 12])},
        ["y"],
        {
            "w0": random(c, 3, 3, 3, seed=1),
            "b0": random(c, seed=2),
            "w1": random(2 * c, c, 3, 3, seed=3),
            "b1": random(2 * c, seed=4),
            "w2": random(c, 2 * c, 3, 3, seed=5),
            "b2": random(c, seed=6),
            "w3": random(2 * c, c // groups, 3, 3, seed=7),
            "w4": random(2 * c, 10, seed=8),
            "b4": random(10, seed=9),
        },
    )


@dataclass(eq=False)
class Rows:
    feeds: dict[str, Array]
    batch: int = 8
    reads: int = field(default=0)

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def __iter__(self) -> Iterator[dict[str, Array]]:
        self.reads += 1
        for at in range(0, len(self), self.batch):
            yield {name: array[at : at + self.batch] for name, array in self.feeds.items()}


@dataclass(eq=False)
class Data:
    fit: Rows
    held: Rows


def data(shape: Sequence[int], rows: int = 64, name: str = "x", held: int = 16, seed: int = 0) -> Data:
    values = np.random.default_rng(seed).standard_normal((rows + held, *shape)).astype(np.float32)
    return Data(Rows({name: values[:rows]}), Rows({name: values[rows:]}))


@dataclass
class Rounding:
    """Rounds to the nearest of 2**bits values a row: a solver that needs nothing else."""

    bits: int = 4
    refuses: str = ""

    def solve(self, task: LayerTask) -> LayerResult:
        if self.refuses and self.refuses in task.name:
            raise RefusedLayer("it was told to")
        low, high = task.weight.min(axis=1, keepdims=True), task.weight.max(axis=1, keepdims=True)
        scales = np.maximum((high - low) / (2**self.bits - 1), 1e-9).astype(np.float32)
        zero = np.clip(np.round(-low / scales), 0, 2**self.bits - 1)
        codes = np.clip(np.round(task.weight / scales) + zero, 0, 2**self.bits - 1).astype(np.uint8)
        form = Uniform(codes, scales, zero.astype(np.uint8), self.bits)
        errors = [output_error(task.weight, form.decode(), moments) for moments in (task.fit, task.held)]
        return LayerResult(form, None, None, errors[0], errors[1])


def decoded(graph: Graph, layer: Any, form: Any, activation: Any, bias: Array | None) -> None:
    """An emitter that writes plain values."""
    graph.set_dense(layer, form.decode(), bias)


@dataclass
class Same:
    """Answers the target itself."""

    def solve(self, task: LayerTask) -> LayerResult:
        return LayerResult(Dense(task.weight), None, None, 0.0, 0.0)


def run(graph: Graph, feeds: dict[str, Array]) -> list[Array]:
    return list(graph.session().run(None, feeds))
