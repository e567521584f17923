"""Which channels can only go together: what one layer makes and others read, through sums, norms and pooling.

A space of channels starts at each layer's output and flows with the tensors; where two spaces are added up they become
one. A space that reaches anything whose channels cannot be followed (an output of the model, a LayerNormalization, an
operator that is not known here) is left whole. Runs where graphs do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from tidemill.compress.layers import Layer, attributes, reads, subgraphs
from tidemill.core.tensor import Array

if TYPE_CHECKING:
    from tidemill.compress.graph import Graph

Kind: TypeAlias = Literal["channels", "heads", "ffn"]

EACH_FOR_ITSELF = frozenset(
    (
        *(
            "Relu",
            "LeakyRelu",
            "Elu",
            "Selu",
            "Celu",
            "ThresholdedRelu",
            "Gelu",
            "FastGelu",
            "QuickGelu",
            "Erf",
            "Tanh",
        ),
        *(
            "Sigmoid",
            "HardSigmoid",
            "HardSwish",
            "Swish",
            "Mish",
            "Softplus",
            "Softsign",
            "Clip",
            "Identity",
            "Dropout",
        ),
        *("Cast", "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos"),
    )
)
OF_TWO = frozenset(("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu", "Sum", "Mean"))
POOLS = frozenset(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
REDUCTIONS = frozenset(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceL1"))


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A layer and where the units lie in `Graph.weight(layer)`: `places` [units, width] are rows of a producer, columns
    of a consumer. A consumer's places together are all its columns."""

    layer: Layer
    places: Array


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """A constant that is indexed by channel: input number `at` of `node`, along `axis`."""

    node: str
    at: int
    axis: int
    places: Array


@dataclass(frozen=True, slots=True)
class Resize:
    """Entry `entry` of the shape that the Reshape `node` is given: units left times `per_unit`."""

    node: str
    entry: int
    per_unit: int


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """`size` units that can go, each of `unit_width` channels of the tensor between: a convolution's channel (1), an
    FFN's column (1), an attention head. `name` is its first producer's. `depthwise` convolutions have one group less
    for each unit that goes."""

    name: str
    kind: Kind
    size: int
    unit_width: int
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    others: tuple[Other, ...] = ()
    resizes: tuple[Resize, ...] = ()
    depthwise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Flow:
    """Where a tensor has the channels of `space`: at `axis`, counted from behind. `rank` is None where only the axes
    behind are known. `flat` says that each channel has become several neighbours, as Flatten makes them."""

    space: int
    axis: int
    rank: int | None
    flat: bool = False


def find(graph: Graph) -> list[ChannelGroup]:
    """In topological order of their first producers; those of attention heads too."""
    from tidemill.compress import heads

    order = {node.name: at for at, node in enumerate(graph.nodes)}
    found = (*_Finder(graph).groups(), *heads.find(graph))
    return sorted(found, key=lambda group: min(order[member.layer.name] for member in group.producers))


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers = {layer.name: layer for layer in graph.layers()}
        self.flow: dict[str, _Flow] = {}
        self.parent: list[int] = []
        self.size: list[int] = []
        self.blocked: set[int] = set()
        self.producers: list[tuple[int, Member]] = []
        self.consumers: list[tuple[int, Member]] = []
        self.others: list[tuple[int, Other]] = []
        self.resizes: list[tuple[int, Resize]] = []
        self.depthwise: list[tuple[int, str]] = []
        self.rules = self._rules()

    def groups(self) -> list[ChannelGroup]:
        for node in self.graph.nodes:
            layer = self.layers.get(node.name)
            if layer is not None:
                self._layer(layer)
            elif any(name in self.flow for name in reads(node)) and node.op_type != "Shape":
                self._node(node)
        for each in self.graph.model.graph.output:
            self._block(each.name)
        return self._collected()

    def _collected(self) -> list[ChannelGroup]:
        found = []
        for space in dict.fromkeys(self._root(space) for space, _ in self.producers):
            if any(self._root(each) == space for each in self.blocked):
                continue

            def of(pairs: list[tuple[int, Any]], space: int = space) -> tuple[Any, ...]:
                return tuple(each for at, each in pairs if self._root(at) == space)

            producers, consumers = of(self.producers), of(self.consumers)
            if not consumers or self.size[space] < 2:
                continue
            convolves = any(member.layer.op == "Conv" for member in (*producers, *consumers))
            found.append(
                ChannelGroup(
                    producers[0].layer.name, "channels" if convolves else "ffn", self.size[space], 1,
                    producers, consumers, of(self.others), of(self.resizes), of(self.depthwise),
                )
            )  # fmt: skip
        return found

    # -- spaces --------------------------------------------------------------------------------------------------------

    def _new(self, size: int) -> int:
        self.parent.append(len(self.parent))
        self.size.append(size)
        return len(self.parent) - 1

    def _root(self, space: int) -> int:
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def _join(self, one: int, other: int) -> None:
        one, other = sorted((self._root(one), self._root(other)))
        if self.size[one] != self.size[other]:
            self.blocked |= {one, other}
            return
        self.parent[other] = one

    def _block(self, *tensors: str) -> None:
        self.blocked |= {self.flow[name].space for name in tensors if name in self.flow}

    def _size(self, flow: _Flow) -> int:
        return self.size[self._root(flow.space)]

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        node = self.graph.node(layer.name)
        rest = [name for at, name in enumerate(node.input) if name != layer.input]
        self._block(*rest)
        flow = self.flow.get(layer.input)
        if layer.op == "Conv" and flow is not None and self._is_depthwise(layer, flow):
            self.others.append((flow.space, Other(layer.name, 1, 0, np.arange(self._size(flow))[:, None])))
            if layer.bias is not None:
                self.others.append((flow.space, Other(layer.name, 2, 0, np.arange(self._size(flow))[:, None])))
            self.depthwise.append((flow.space, layer.name))
            self.flow[layer.output] = flow
            if layer.shared:
                self._block(layer.input)
            return
        if flow is not None:
            columns = None if layer.shared or layer.through else self._columns(layer, flow)
            if columns is None:
                self._block(layer.input)
            else:
                self.consumers.append((flow.space, Member(layer, columns)))
        if layer.groups == 1 and layer.operand == 1 and layer.op != "Gather":
            space = self._new(layer.shape[0])
            if layer.shared or layer.through:
                self.blocked.add(space)
            rank = len(self.graph.shape(layer.weight) or ()) if layer.op == "Conv" else None
            self.flow[layer.output] = _Flow(
                space, -1 if rank is None else 1 - rank, rank if rank else self._rank(layer)
            )
            self.producers.append((space, Member(layer, np.arange(layer.shape[0])[:, None])))

    def _rank(self, layer: Layer) -> int | None:
        if layer.op == "Gemm":
            return 2
        flow = self.flow.get(layer.input)
        return None if flow is None else flow.rank

    def _is_depthwise(self, layer: Layer, flow: _Flow) -> bool:
        size = self._size(flow)
        rank = len(self.graph.shape(layer.weight) or ())
        return layer.groups == size > 1 and layer.shape[0] == 1 and flow.axis == 1 - rank and not flow.flat

    def _columns(self, layer: Layer, flow: _Flow) -> Array | None:
        size = self._size(flow)
        if layer.op == "Conv":
            shape = self.graph.shape(layer.weight) or ()
            if layer.groups != 1 or flow.flat or flow.axis != 1 - len(shape) or shape[1] != size:
                return None
        elif layer.op == "Gather" or layer.operand != 1 or flow.axis != -1:
            return None
        width, left = divmod(layer.shape[1], size)
        if left or (width != 1 and layer.op != "Conv" and not flow.flat):
            return None
        return np.arange(layer.shape[1]).reshape(size, width)

    def _node(self, node: Any) -> None:
        rule = None if subgraphs(node) else self.rules.get(node.op_type)
        into = rule(node) if rule is not None else None
        if into is None:
            self._block(*reads(node))
        else:
            self.flow[node.output[0]] = into

    def _rules(self) -> Mapping[str, Callable[[Any], _Flow | None]]:
        rules: dict[str, Callable[[Any], _Flow | None]] = dict.fromkeys(EACH_FOR_ITSELF, self._same)
        rules |= dict.fromkeys(OF_TWO, self._of_two)
        rules |= dict.fromkeys(POOLS, self._pool)
        rules |= dict.fromkeys(REDUCTIONS, self._reduce)
        rules |= {
            "BatchNormalization": self._norm, "InstanceNormalization": self._norm, "Flatten": self._flatten,
            "Reshape": self._reshape, "Transpose": self._transpose, "Squeeze": self._squeeze,
            "Unsqueeze": self._unsqueeze, "Pad": self._pad, "Resize": self._resize,
        }  # fmt: skip
        return rules

    def _only_first(self, node: Any) -> _Flow | None:
        """The first input's flow, where it alone has one."""
        if any(name in self.flow for name in list(node.input)[1:]):
            return None
        return self.flow.get(node.input[0])

    def _same(self, node: Any) -> _Flow | None:
        return self._only_first(node)

    def _pool(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        return flow if flow is not None and flow.rank is not None and flow.axis + flow.rank == 1 else None

    def _norm(self, node: Any) -> _Flow | None:
        flow = self._pool(node)
        if flow is None or any(self.graph.shape(name) != (self._size(flow),) for name in list(node.input)[1:]):
            return None
        for at in range(1, len(node.input)):
            self.others.append((flow.space, Other(node.name, at, 0, np.arange(self._size(flow))[:, None])))
        return flow

    def _of_two(self, node: Any) -> _Flow | None:
        flows = [self.flow[name] for name in node.input if name in self.flow]
        first = flows[0]
        for flow in flows[1:]:
            if (flow.axis, flow.flat) != (first.axis, first.flat):
                return None
        size = self._size(first)
        for at, name in enumerate(node.input):
            if name in self.flow:
                continue
            shape = self.graph.shape(name)
            if shape is None:
                return None
            if first.rank is not None and len(shape) > first.rank:
                return None
            wide = shape[first.axis] if len(shape) >= -first.axis else 1
            if wide == 1:
                continue
            width, left = divmod(wide, size)
            if left or (width != 1 and not first.flat):
                return None
            places = np.arange(wide).reshape(size, width)
            self.others.append((first.space, Other(node.name, at, len(shape) + first.axis, places)))
        for flow in flows[1:]:
            self._join(first.space, flow.space)
        known = [flow.rank for flow in flows if flow.rank is not None]
        return replace(first, rank=max(known) if known else None)

    def _flatten(self, node: Any) -> _Flow | None:
        flow = self.flow[node.input[0]]
        axis = attributes(node).get("axis", 1)
        if flow.rank is None or flow.axis + flow.rank != 1 or axis % flow.rank != 1:
            return None
        return _Flow(flow.space, -1, 2, flat=flow.flat or flow.rank > 2)

    def _reshape(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        if flow is None or flow.flat or self.graph.shape(node.input[1]) is None:
            return None
        wanted = [int(side) for side in self.graph.array(node.input[1])]
        size = self._size(flow)
        # Behind the first axis nothing but the channels and what each of them spans: a Flatten by another name.
        if len(wanted) == 2 and flow.rank is not None and flow.axis + flow.rank == 1:
            if wanted[1] > 0 and wanted[1] % size:
                return None
            if wanted[1] > 0:
                self.resizes.append((flow.space, Resize(node.name, 1, wanted[1] // size)))
            elif wanted[1] == 0 and flow.rank > 2:
                return None
            return _Flow(flow.space, -1, 2, flat=flow.rank > 2)
        if flow.axis == -1 and wanted and wanted[-1] == size:
            self.resizes.append((flow.space, Resize(node.name, len(wanted) - 1, 1)))
            return _Flow(flow.space, -1, len(wanted))
        # [N, C] to [N, C, 1, 1], before a gate.
        if flow.axis == -1 and len(wanted) > 2 and wanted[1] == size and all(side == 1 for side in wanted[2:]):
            self.resizes.append((flow.space, Resize(node.name, 1, 1)))
            return _Flow(flow.space, 1 - len(wanted), len(wanted))
        return None

    def _transpose(self, node: Any) -> _Flow | None:
        flow = self.flow[node.input[0]]
        order = attributes(node).get("perm")
        rank = len(order) if order else flow.rank
        if rank is None or flow.flat or (flow.rank is not None and flow.rank != rank):
            return None
        order = list(order) if order else list(range(rank))[::-1]
        return _Flow(flow.space, order.index(flow.axis + rank) - rank, rank)

    def _axes(self, node: Any, rank: int) -> list[int] | None:
        """From the attribute of old or the input of new; all counted from the front. None where they are unknown."""
        axes = attributes(node).get("axes")
        if axes is None and len(node.input) > 1 and node.input[1]:
            if self.graph.shape(node.input[1]) is None:
                return None
            axes = self.graph.array(node.input[1]).ravel().tolist()
        return None if axes is None else sorted(int(axis) % rank for axis in axes)

    def _reduce(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        axes = None if flow is None or flow.rank is None else self._axes(node, flow.rank)
        if flow is None or flow.rank is None or not axes or flow.flat or flow.axis + flow.rank in axes:
            return None
        return flow if attributes(node).get("keepdims", 1) else _without(flow, axes)

    def _squeeze(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        axes = None if flow is None or flow.rank is None else self._axes(node, flow.rank)
        if flow is None or flow.rank is None or not axes or flow.axis + flow.rank in axes:
            return None
        return _without(flow, axes)

    def _unsqueeze(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        if flow is None or flow.rank is None or flow.flat:
            return None
        added = attributes(node).get("axes")
        if added is None and self.graph.shape(node.input[1]) is not None:
            added = self.graph.array(node.input[1]).ravel().tolist()
        if added is None:
            return None
        rank = flow.rank + len(added)
        taken = {int(axis) % rank for axis in added}
        kept = [axis for axis in range(rank) if axis not in taken]
        return _Flow(flow.space, kept[flow.axis + flow.rank] - rank, rank)

    def _pad(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        pads = attributes(node).get("pads")
        if pads is None and len(node.input) > 1 and self.graph.shape(node.input[1]) is not None:
            pads = self.graph.array(node.input[1]).tolist()
        if flow is None or flow.rank is None or pads is None or len(pads) != 2 * flow.rank or len(node.input) > 3:
            return None
        at = flow.axis + flow.rank
        return None if pads[at] or pads[at + flow.rank] else flow

    def _resize(self, node: Any) -> _Flow | None:
        flow = self._only_first(node)
        scales = node.input[2] if len(node.input) > 2 else ""
        if flow is None or flow.rank is None or not scales or self.graph.shape(scales) != (flow.rank,):
            return None
        return flow if self.graph.array(scales)[flow.axis] == 1 else None


def _without(flow: _Flow, axes: list[int]) -> _Flow:
    rank = flow.rank or 0
    behind = sum(axis > flow.axis + rank for axis in axes)
    return replace(flow, axis=flow.axis + behind, rank=rank - len(axes))
