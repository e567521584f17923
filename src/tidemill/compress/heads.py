"""Finds attention heads: what a Softmax between two products of activations stands for; runs where graphs do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.compress.groups import ChannelGroup, Member, Other, Resize
from tidemill.compress.layers import Layer, attributes, reads

if TYPE_CHECKING:
    from tidemill.compress.graph import Graph

WAY_MAX = 12
"""Nodes between a product and its layer; attention that is further apart is none that is known here."""


def find(graph: Graph) -> list[ChannelGroup]:
    """Of attention written out: Q, K, V each of a MatMul or Gemm, split by a Reshape [.., heads, width]."""
    seek = _Seek(graph)
    found = [seek.around(node) for node in graph.nodes if node.op_type == "Softmax"]
    return [group for group in found if group is not None]


@dataclass(slots=True)
class _Way:
    """From a layer to a product: `heads` and `width` are what its Reshape splits the channels into."""

    layer: Layer
    heads: int = 0
    width: int = 0
    others: list[tuple[str, int, int]] = field(default_factory=list)
    resizes: list[Resize] = field(default_factory=list)


class _Seek:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.maker = {name: node for node in graph.nodes for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.nodes:
            for name in reads(node):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {each.name for each in graph.model.graph.output}
        self.layers = {layer.output: layer for layer in graph.layers() if layer.op in {"MatMul", "Gemm"}}
        self.by_node = {layer.name: layer for layer in self.layers.values()}

    def around(self, softmax: Any) -> ChannelGroup | None:
        scores, own = self._up_to_product(softmax.input[0])
        context = self._down_to_product(softmax.output[0])
        if scores is None or context is None or context.input[0] not in self._passed(softmax.output[0]):
            return None
        ways = [self._up(name) for name in (*scores.input[:2], context.input[1])]
        end = self._down(context.output[0])
        if end is None or any(way is None for way in ways):
            return None
        query, key, value = (way for way in ways if way is not None)
        heads, width = value.heads, value.width
        alike = all(way.heads == heads for way in (query, key)) and query.width == key.width
        layers = {way.layer.name for way in (query, key, value)}
        consumer, resizes = end
        fits = consumer.shape[1] == heads * width and consumer.name not in layers
        if not (alike and fits and len(layers) == 3 and heads > 1):
            return None
        if any(way.layer.shared or way.layer.through for way in (query, key, value)) or consumer.shared:
            return None
        producers = tuple(Member(way.layer, _units(heads, way.width)) for way in (query, key, value))
        others = [
            Other(node, at, axis, _units(heads, way.width))
            for way in (query, key, value)
            for node, at, axis in way.others
        ]
        others += [Other(node, at, axis, _units(heads, 1)) for node, at, axis in own if self._wide(node, at, axis) > 1]
        if any(self._wide(node, at, axis) not in {1, heads} for node, at, axis in own):
            return None
        every = (*query.resizes, *key.resizes, *value.resizes, *(Resize(n, e, width) for n, e in resizes))
        return ChannelGroup(
            value.layer.name, "heads", heads, width, producers, (Member(consumer, _units(heads, width)),),
            tuple(others), every,
        )  # fmt: skip

    def _wide(self, node: str, at: int, axis: int) -> int:
        shape = self.graph.shape(self.graph.node(node).input[at]) or ()
        return shape[axis] if axis >= 0 else 1

    def _only(self, tensor: str) -> Any | None:
        found = [node for node in self.readers.get(tensor, []) if node.op_type != "Shape"]
        return found[0] if len(found) == 1 and tensor not in self.outputs else None

    def _up_to_product(self, tensor: str) -> tuple[Any | None, list[tuple[str, int, int]]]:
        """From the scores that Softmax takes, back through scale and mask; constants there may be wide as heads."""
        own: list[tuple[str, int, int]] = []
        for _ in range(WAY_MAX):
            node = self.maker.get(tensor)
            if node is None or (self._only(tensor) is None):
                return None, own
            if node.op_type == "MatMul":
                return (node, own) if self._activations(node) else (None, own)
            if node.op_type in {"Div", "Mul", "Add", "Sub", "Cast", "Clip", "Where", "Identity"}:
                back = [name for name in node.input if self._leads_to_product(name)]
                if len(back) != 1:
                    return None, own
                for at, name in enumerate(node.input):
                    shape = self.graph.shape(name)
                    if shape is not None:
                        own.append((node.name, at, len(shape) - 3))
                tensor = back[0]
                continue
            return None, own
        return None, own

    def _leads_to_product(self, tensor: str) -> bool:
        for _ in range(WAY_MAX):
            node = self.maker.get(tensor)
            if node is None:
                return False
            if node.op_type == "MatMul" and self._activations(node):
                return True
            if node.op_type not in {"Div", "Mul", "Add", "Sub", "Cast", "Clip", "Identity"}:
                return False
            made = [name for name in node.input if name in self.maker]
            if not made:
                return False
            tensor = made[0]
        return False

    def _activations(self, node: Any) -> bool:
        return node.name not in self.by_node and all(self.graph.shape(name) is None for name in node.input)

    def _passed(self, tensor: str) -> set[str]:
        """The tensor, and what it is called behind nodes that change nothing."""
        names = {tensor}
        for _ in range(WAY_MAX):
            node = self._only(tensor)
            if node is None or node.op_type not in {"Dropout", "Cast", "Identity"}:
                break
            tensor = node.output[0]
            names.add(tensor)
        return names

    def _down_to_product(self, tensor: str) -> Any | None:
        for name in self._passed(tensor):
            node = self._only(name)
            if node is not None and node.op_type == "MatMul" and self._activations(node):
                return node
        return None

    def _up(self, tensor: str) -> _Way | None:
        """From Q, K or V as the product takes it, back to the layer."""
        wide: list[tuple[str, int, int]] = []
        split: tuple[int, int] | None = None
        resizes: list[Resize] = []
        for _ in range(WAY_MAX):
            if tensor in self.layers and split is not None:
                layer = self.layers[tensor]
                heads, width = split
                if self._only(tensor) is None or layer.operand != 1 or layer.shape[0] != heads * width:
                    return None
                return _Way(layer, heads, width, wide, resizes)
            node = self.maker.get(tensor)
            if node is None or self._only(tensor) is None:
                return None
            if node.op_type == "Reshape" and split is None:
                split = self._split(node, resizes)
                if split is None:
                    return None
            elif node.op_type in {"Add", "Mul", "Div", "Sub"}:
                made = [name for name in node.input if self.graph.shape(name) is None]
                if len(made) != 1:
                    return None
                if not self._wide_constants(node, split, wide):
                    return None
                tensor = made[0]
                continue
            elif node.op_type == "Transpose":
                order = attributes(node).get("perm", [])
                if split is not None or len(order) not in {3, 4} or (len(order) == 4 and order.index(2) != 1):
                    return None
            elif node.op_type not in {"Identity", "Cast", "Dropout"}:
                return None
            tensor = node.input[0]
        return None

    def _split(self, reshape: Any, resizes: list[Resize]) -> tuple[int, int] | None:
        """(heads, width) that a Reshape to [N, T, heads, width] makes of the channels."""
        given, channels = self._sides(reshape), self._channels(reshape.input[0])
        if given is None or len(given) != 4 or channels is None:
            return None
        heads, width = given[2] or 0, given[3] or 0
        heads = channels // width if heads == -1 and width > 0 else heads
        width = channels // heads if width == -1 and heads > 0 else width
        if heads <= 0 or width <= 0 or heads * width != channels:
            return None
        if given[2] != -1:
            resizes.append(Resize(reshape.name, 2, 1))
        if given[3] == -1:
            return None  # with fewer heads it would find another width
        return heads, width

    def _wide_constants(self, node: Any, split: tuple[int, int] | None, wide: list[tuple[str, int, int]]) -> bool:
        """Constants between layer and Reshape that have a value for each channel, added to `wide`; False for any
        other constant of several values."""
        for at, name in enumerate(node.input):
            shape = self.graph.shape(name)
            if shape is None or int(np.prod(shape)) == 1:
                continue
            if split is None or shape[-1] != split[0] * split[1] or int(np.prod(shape)) != shape[-1]:
                return False
            wide.append((node.name, at, len(shape) - 1))
        return True

    def _channels(self, tensor: str) -> int | None:
        """How many the layer behind `tensor` makes."""
        for _ in range(WAY_MAX):
            if tensor in self.layers:
                return self.layers[tensor].shape[0]
            node = self.maker.get(tensor)
            if node is None or node.op_type not in {"Add", "Mul", "Div", "Sub", "Identity", "Cast", "Dropout"}:
                return None
            made = [name for name in node.input if self.graph.shape(name) is None]
            if len(made) != 1:
                return None
            tensor = made[0]
        return None

    def _down(self, tensor: str) -> tuple[Layer, list[tuple[str, int]]] | None:
        """From the context to the layer that takes all heads, and the Reshapes on the way."""
        turned = merged = False
        resizes: list[tuple[str, int]] = []
        for _ in range(WAY_MAX):
            node = self._only(tensor)
            if node is None:
                return None
            if node.name in self.by_node:
                layer = self.by_node[node.name]
                return (layer, resizes) if merged and layer.input == tensor and layer.operand == 1 else None
            if node.op_type == "Transpose" and not merged:
                if attributes(node).get("perm") != [0, 2, 1, 3]:
                    return None
                turned = True
            elif node.op_type == "Reshape" and turned:
                sides = self._sides(node)
                if sides is None or len(sides) not in {2, 3}:
                    return None
                if sides[-1] != -1:
                    resizes.append((node.name, len(sides) - 1))
                merged = True
            elif node.op_type not in {"Identity", "Cast", "Dropout"}:
                return None
            tensor = node.output[0]
        return None

    def _sides(self, reshape: Any) -> list[int | None] | None:
        """The shape it is given; None for sides that are found as the model runs."""
        return sides(self.graph, self.maker, reshape)


def sides(graph: Graph, maker: dict[str, Any], reshape: Any) -> list[int | None] | None:
    """The shape that a Reshape is given: a constant, or a Concat of single numbers, some of them constant."""
    name = reshape.input[1]
    if graph.shape(name) is not None:
        return [int(side) for side in graph.array(name).ravel()]
    node = maker.get(name)
    if node is None or node.op_type != "Concat":
        return None
    found: list[int | None] = []
    for each in node.input:
        shape = graph.shape(each)
        if shape is not None and int(np.prod(shape)) != 1:
            return None
        found.append(None if shape is None else int(graph.array(each).ravel()[0]))
    return found


def _units(heads: int, width: int) -> Any:
    return np.arange(heads * width).reshape(heads, width)
