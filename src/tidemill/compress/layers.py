"""Which nodes of a graph are layers, and why the others with weights are left alone; plain values for any process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tidemill.compress.graph import Graph

QUANTISED = frozenset(
    (
        *("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"),
        *("QLinearMatMul", "QLinearConv", "MatMulNBits", "MatMulBnb4", "DynamicQuantizeMatMul", "QGemm", "QAttention"),
        *("MatMulIntegerToFloat", "GatherBlockQuantized", "QMoE", "QLinearAdd", "QGather", "MatMulFpQ4"),
    )
)
LAYER_OPS = ("MatMul", "Gemm", "Conv", "Gather")
OPS_WITH_WEIGHTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN")
REASONS_MAX = 20
WEIGHTS_MIN = 256
"""A constant of fewer elements, in a node that is no layer, is not worth a word in the report."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer y = W x + b of a graph, W of `shape` (out, in) for each of its `groups`.

    `name` is the node's name, made unique when the graph is read. `op` is one of `LAYER_OPS`. `input` and `output` are
    the node's own tensors; `weight` is the initializer of W, and `operand` which of the node's inputs it comes in at
    (0 for a MatMul whose constant is on the left, which then works along the last axis but one of its input).
    `out_major` says that the initializer is stored [out, in]. `through` names a Transpose between initializer and node.
    `bias` is an initializer: Gemm's C, Conv's B, or the constant of the Add (node `add`) that alone follows a MatMul.
    `shared` names the other layers on the same initializer. `op` Gather is an embedding: its rows are the outputs
    [V, D], and its output is a row, as if x were the identity.
    """

    name: str
    op: str
    input: str
    output: str
    weight: str
    shape: tuple[int, int]
    groups: int = 1
    bias: str | None = None
    add: str = ""
    operand: int = 1
    out_major: bool = False
    through: str = ""
    shared: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        return self.name

    @property
    def stage_key(self) -> str:
        """Layers with the same key see the same inputs, and are solved in one stage."""
        return self.input

    @property
    def size(self) -> int:
        """How many weights it has."""
        return self.groups * self.shape[0] * self.shape[1]


class LeftAlone(NamedTuple):
    node: str
    op: str
    reason: str


def find(graph: Graph) -> tuple[list[Layer], list[LeftAlone]]:
    """Layers in topological order, and what else has weights, with the reason why it is no layer."""
    index = _Index(graph)
    layers: list[Layer] = []
    left: list[LeftAlone] = []
    for node in graph.nodes:
        found = _layer(index, node)
        if isinstance(found, Layer):
            layers.append(found)
        elif found:
            left.append(LeftAlone(node.name, node.op_type, found))
        left += _inside(node)
    return _shared(layers, left), left


def reasons(left: Sequence[LeftAlone]) -> str:
    """Of the first of them, for a message; "" for none."""
    told = [f"{name} ({op}) was left alone: {why}" for name, op, why in left[:REASONS_MAX]]
    return "; ".join(told) + (f"; and {len(left) - REASONS_MAX} more" if len(left) > REASONS_MAX else "")


def _inside(node: Any) -> list[LeftAlone]:
    """What has weights in the branches of an If, the bodies of a Loop or Scan."""
    where = f"it lies inside {node.name!r} ({node.op_type}), and what branches or loops is not compressed"
    return [
        LeftAlone(inner.name or f"{inner.op_type} in {node.name}", inner.op_type, where)
        for graph in subgraphs(node)
        for inner in all_nodes(graph)
        if inner.op_type in OPS_WITH_WEIGHTS
    ]


class _Index:
    """Who makes and who reads each tensor, found once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.maker: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.nodes:
            for name in node.output:
                self.maker[name] = node
            for name in reads(node):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {each.name for each in graph.model.graph.output}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a constant, None for anything else."""
        return self.graph.shape(name)

    def source(self, name: str) -> tuple[str, str] | None:
        """(initializer, Transpose node or "") that a constant matrix comes from."""
        if self.shape(name) is not None:
            return name, ""
        node = self.maker.get(name)
        if node is None or node.op_type != "Transpose" or self.shape(node.input[0]) is None:
            return None
        rank = len(self.shape(node.input[0]) or ())
        order = attributes(node).get("perm", list(range(rank))[::-1])
        return (node.input[0], node.name) if rank == 2 and list(order) == [1, 0] else None


def _layer(index: _Index, node: Any) -> Layer | str:
    """The layer, a reason, or "" for a node without weights."""
    if node.op_type in QUANTISED:
        quantised = _weights(index, node, of_any_type=True)
        return "already quantised" if quantised else ""
    found: Layer | str = ""
    if node.domain in {"", "ai.onnx"}:
        if node.op_type in {"MatMul", "Gemm"}:
            found = _matrix(index, node)
        elif node.op_type == "Conv":
            found = _convolution(index, node)
        elif node.op_type == "Gather":
            found = _embedding(index, node)
    if isinstance(found, Layer):
        return _checked(index, found)
    if found:
        return found
    if node.op_type == "Transpose":
        return ""
    if node.op_type in LAYER_OPS and any(_is_quantised(index, name) for name in node.input):
        return "already quantised"
    biggest = max(_weights(index, node), default=0)
    return f"{node.op_type} is not an operator that is compressed" if biggest >= WEIGHTS_MIN else ""


def _checked(index: _Index, layer: Layer) -> Layer | str:
    dtype = index.graph.dtype(layer.weight)
    if dtype != np.dtype(np.float32):
        return (
            "" if dtype is None or dtype.kind not in "f" else f"its weights are {dtype}, and only float32 is compressed"
        )
    if layer.bias is not None and index.graph.dtype(layer.bias) != np.dtype(np.float32):
        return "its bias is not float32"
    return layer


def _is_quantised(index: _Index, name: str) -> bool:
    maker = index.maker.get(name)
    for _ in range(3):  # through a Transpose or Reshape of the decoded weight
        if maker is None or maker.op_type in QUANTISED:
            break
        maker = index.maker.get(maker.input[0]) if maker.op_type in {"Transpose", "Reshape", "Cast"} else None
    return maker is not None and maker.op_type in QUANTISED and bool(_weights(index, maker, of_any_type=True))


def _matrix(index: _Index, node: Any) -> Layer | str:
    gemm = node.op_type == "Gemm"
    told = attributes(node)
    sources = [index.source(name) for name in node.input[:2]]
    if sources[0] and sources[1]:
        return ""
    if sources[1] is not None:
        operand, (weight, through) = 1, sources[1]
    elif sources[0] is not None and not gemm:
        operand, (weight, through) = 0, sources[0]
    else:
        return ""
    shape = index.shape(weight) or ()
    if len(shape) != 2:
        return f"its constant has {len(shape)} dimensions, and only matrices are compressed" if _big(shape) else ""
    if gemm and told.get("transA", 0):
        return "Gemm with transA is not compressed"
    if gemm and (told.get("alpha", 1.0) != 1.0 or told.get("beta", 1.0) != 1.0):
        return "Gemm with alpha or beta, on a constant that others share, is not compressed"
    stored_out_first = bool(told.get("transB", 0)) if gemm else operand == 0
    out_major = stored_out_first != bool(through)
    layer = Layer(
        node.name, node.op_type, node.input[1 - operand], node.output[0], weight,
        shape if out_major else shape[::-1], operand=operand, out_major=out_major, through=through,
    )  # fmt: skip
    if gemm:
        if len(node.input) < 3 or not node.input[2]:
            return layer
        given = index.shape(node.input[2])
        if given is None or int(np.prod(given)) not in {1, layer.shape[0]} or (len(given) == 2 and given[0] != 1):
            return "Gemm whose C is not a constant row is not compressed"
        return replace(layer, bias=node.input[2])
    return _with_add(index, layer) if operand == 1 else layer


def _with_add(index: _Index, layer: Layer) -> Layer:
    readers = index.readers.get(layer.output, [])
    if len(readers) != 1 or layer.output in index.outputs or readers[0].op_type != "Add":
        return layer
    add = readers[0]
    other = add.input[1] if add.input[0] == layer.output else add.input[0]
    shape = index.shape(other)
    if shape is None or not shape or shape[-1] != layer.shape[0] or int(np.prod(shape)) != layer.shape[0]:
        return layer
    return replace(layer, bias=other, add=add.name) if len(shape) == 1 else layer


def _convolution(index: _Index, node: Any) -> Layer | str:
    shape = index.shape(node.input[1])
    if shape is None:
        return ""
    if len(shape) < 3:
        return "Conv without a kernel is not compressed"
    groups = int(attributes(node).get("group", 1))
    if groups < 1 or shape[0] % groups:
        return f"Conv of {shape[0]} outputs in {groups} groups is not one that can be computed"
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and index.shape(bias) is None:
        return "Conv whose bias is not constant is not compressed"
    return Layer(
        node.name, "Conv", node.input[0], node.output[0], node.input[1],
        (shape[0] // groups, int(np.prod(shape[1:]))), groups, bias, out_major=True,
    )  # fmt: skip


def _embedding(index: _Index, node: Any) -> Layer | str:
    shape = index.shape(node.input[0])
    if shape is None or len(shape) != 2 or attributes(node).get("axis", 0) not in {0, -2}:
        return ""
    if (index.graph.dtype(node.input[0]) or np.dtype(bool)).kind != "f":
        return ""
    return Layer(
        node.name, "Gather", node.input[1], node.output[0], node.input[0], (shape[0], shape[1]),
        operand=0, out_major=True,
    )  # fmt: skip


def _shared(layers: list[Layer], left: list[LeftAlone]) -> list[Layer]:
    """`layers` with `shared` filled in; what shares one initializer in two orientations, or with a node that is no
    layer, stays: the other's `Transpose` is kept apart by `through`."""
    on: dict[str, list[Layer]] = {}
    for layer in layers:
        on.setdefault(layer.weight, []).append(layer)
    kept = []
    for layer in layers:
        group = on[layer.weight]
        if len({(each.shape, each.out_major, each.groups, each.op == "Conv") for each in group}) > 1:
            others = ", ".join(each.name for each in group if each is not layer)
            left.append(LeftAlone(layer.name, layer.op, f"shares {layer.weight!r} the other way round with {others}"))
            continue
        kept.append(replace(layer, shared=tuple(each.name for each in group if each is not layer)))
    return kept


def _weights(index: _Index, node: Any, of_any_type: bool = False) -> list[int]:
    """Sizes of the node's constants of two dimensions or more."""
    found = []
    for name in node.input:
        shape = index.shape(name)
        dtype = index.graph.dtype(name)
        if shape is not None and (of_any_type or (dtype is not None and dtype.kind == "f" and len(shape) >= 2)):
            found.append(int(np.prod(shape)))
    return found


def _big(shape: Iterable[int]) -> bool:
    return int(np.prod(tuple(shape))) >= WEIGHTS_MIN


def attributes(node: Any) -> Mapping[str, Any]:
    """The plain attributes of a node: numbers, words and lists of them."""
    found: dict[str, Any] = {}
    for each in node.attribute:
        if each.type == each.FLOAT:
            found[each.name] = each.f
        elif each.type == each.INT:
            found[each.name] = each.i
        elif each.type == each.STRING:
            found[each.name] = each.s.decode(errors="replace")
        elif each.type == each.INTS:
            found[each.name] = list(each.ints)
        elif each.type == each.FLOATS:
            found[each.name] = list(each.floats)
    return found


def subgraphs(node: Any) -> list[Any]:
    """The graphs of If, Loop, Scan."""
    return [graph for each in node.attribute for graph in ([each.g] if each.HasField("g") else [*each.graphs])]


def all_nodes(graph: Any) -> list[Any]:
    """The nodes of a graph and of those inside it."""
    found = []
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:
            found.append(node)
            waiting.extend(subgraphs(node))
    return found


def reads(node: Any) -> set[str]:
    """The tensors a node reads, those that its subgraphs take from outside included."""
    found = {name for name in node.input if name}
    for graph in subgraphs(node):
        inside = {each.name for each in (*graph.initializer, *graph.input)}
        for inner in graph.node:
            found |= reads(inner) - inside
            inside.update(inner.output)
        found |= {each.name for each in graph.output} - inside
    return found
