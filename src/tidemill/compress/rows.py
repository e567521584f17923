"""Computes the layers of a transformer on rows [tokens, features] instead of [batch, tokens, features].

Runs where graphs do. As rows, a MatMul and the Add of its bias are one Gemm, which engines quantise with its bias
inside. Between layers, what works along the last axis alone (normalisation, activation, residual) stays on rows, so
tensors are reshaped only where a region of such nodes begins and ends: that moves no data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx

from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.wiring import Dim, Wiring, attribute, same, shapes

ONE_BY_ONE: Final = frozenset(
    ("Gelu", "Relu", "Erf", "Tanh", "Sigmoid", "Sqrt", "Neg", "Abs", "Softplus", "Elu", "LeakyRelu")
)
ONE_BY_ONE_OF_TWO: Final = frozenset(("Add", "Sub", "Mul", "Div", "Max", "Min"))


def flatten(graph: Graph) -> int:
    """Change `graph` in place; how many layers work on rows now."""
    wiring, known = Wiring(graph), shapes(graph)
    layers = {layer.name: layer for layer in graph.layers() if layer.op == "MatMul" and _fits(layer)}
    flat = {node.name: node for node in graph.nodes if _flat(node, wiring, known, layers)}
    regions = [region for region in _regions(flat.values(), wiring) if any(node.name in layers for node in region)]
    changed = 0
    for region in regions:
        changed += _Region(graph, wiring, known, layers, region).flatten()
    if changed:
        graph.drop_unused()
    return changed


def _fits(layer: Layer) -> bool:
    return layer.operand == 1 and not layer.through


def _flat(node: Any, wiring: Wiring, known: dict[str, tuple[Dim, ...]], layers: dict[str, Layer]) -> bool:
    """Whether it works along the last axis alone, on tensors whose other axes are the same."""
    shape = known.get(node.output[0]) if node.output else None
    if shape is None or len(shape) < 3 or not isinstance(shape[-1], int) or len(node.output) != 1:
        return False
    if node.name in layers:
        return _alike(node.input[0], shape, known)
    if node.op_type == "LayerNormalization":
        return attribute(node, "axis", -1) in {-1, len(shape) - 1} and _alike(node.input[0], shape, known)
    if node.op_type in ONE_BY_ONE:
        return True
    if node.op_type not in ONE_BY_ONE_OF_TWO or len(node.input) != 2:
        return False
    return all(
        len(wiring.graph.shape(name) or ()) <= 1 if wiring.constant(name) else same(known.get(name, ()), shape)
        for name in node.input
    )


def _alike(name: str, shape: tuple[Dim, ...], known: dict[str, tuple[Dim, ...]]) -> bool:
    given = known.get(name, ())
    return bool(given) and isinstance(given[-1], int) and same(given[:-1], shape[:-1])


def _regions(nodes: Iterable[Any], wiring: Wiring) -> list[list[Any]]:
    """`nodes` in the graph's order, those that read one another together."""
    names = {node.name: node for node in nodes}
    place = {name: at for at, name in enumerate(names)}
    regions: list[list[Any]] = []
    seen: set[str] = set()
    for start in names:
        if start in seen:
            continue
        seen.add(start)
        waiting, region = [start], []
        while waiting:
            name = waiting.pop()
            region.append(names[name])
            node = names[name]
            beside = [wiring.maker[each] for each in node.input if each in wiring.maker]
            beside += [reader for each in node.output for reader in wiring.readers.get(each, [])]
            for other in beside:
                if other.name in names and other.name not in seen:
                    seen.add(other.name)
                    waiting.append(other.name)
        regions.append(sorted(region, key=lambda node: place[node.name]))
    return regions


@dataclass(eq=False)
class _Region:
    """Nodes that read one another's rows, as they are rewritten one after the other. `as_rows` are the rows of tensors
    so far, `sizes` the shapes that turn rows back, by their width."""

    graph: Graph
    wiring: Wiring
    known: dict[str, tuple[Dim, ...]]
    layers: dict[str, Layer]
    nodes: list[Any]
    as_rows: dict[str, str] = field(default_factory=dict)
    sizes: dict[int, str] = field(default_factory=dict)

    def flatten(self) -> int:
        """How many layers work on rows now."""
        names = {node.name for node in self.nodes}
        ours = [self.layers[node.name] for node in self.nodes if node.name in self.layers]
        biased = {layer.add: layer for layer in ours if layer.add in names}
        adds = {node.name: node.output[0] for node in self.nodes if node.name in biased}
        changes: dict[str, list[Any]] = {}
        for node in self.nodes:
            if node.name in biased:  # its MatMul has become a Gemm that adds the bias itself
                changes[node.name] = []
                continue
            before: list[Any] = []
            layer = self.layers.get(node.name)
            output = str(node.output[0] if layer is None else adds.get(layer.add, node.output[0]))
            made = self._other(node, before) if layer is None else self._gemm(layer, layer.add in adds, before)
            self.as_rows[output] = made.output[0] = self.graph.fresh(f"{output}_rows")
            after: list[Any] = []
            readers = self.wiring.readers.get(output, [])
            if output in self.wiring.outputs or any(each.name not in names for each in readers):
                shape = self._whole(self._width(output), after)
                name = self.graph.fresh(f"{output}_whole")
                after.append(onnx.helper.make_node("Reshape", [self.as_rows[output], shape], [output], name=name))
            changes[node.name] = [*before, made, *after]
        self.graph.replace(changes)
        return len(ours)

    def _gemm(self, layer: Layer, adds: bool, before: list[Any]) -> Any:
        terms = [self._rows(layer.input, before), layer.weight]
        if adds and layer.bias is not None:
            terms.append(layer.bias)
        return onnx.helper.make_node("Gemm", terms, [layer.output], name=layer.name)

    def _other(self, node: Any, before: list[Any]) -> Any:
        made = onnx.NodeProto.FromString(node.SerializeToString())
        for at, name in enumerate(node.input):
            made.input[at] = self._rows(name, before)
        if node.op_type == "LayerNormalization":
            kept = [each for each in made.attribute if each.name != "axis"]
            del made.attribute[:]
            made.attribute.extend([*kept, onnx.helper.make_attribute("axis", -1)])
        return made

    def _width(self, name: str) -> int:
        """`_flat` saw to it that it is known."""
        size = self.known[name][-1]
        return size if isinstance(size, int) else -1

    def _rows(self, name: str, before: list[Any]) -> str:
        """The rows of a tensor; those of one from outside are made in front of the node that wants them first."""
        if self.wiring.constant(name) or name in self.as_rows:
            return self.as_rows.get(name, name)
        target, shape = self.graph.fresh(f"{name}_rows"), self.graph.fresh(f"{name}_rows_shape")
        self.graph.put(shape, np.array([-1, self._width(name)], np.int64))
        before.append(onnx.helper.make_node("Reshape", [name, shape], [target], name=target))
        self.as_rows[name] = target
        return target

    def _whole(self, size: int, before: list[Any]) -> str:
        """The shape of a tensor of `size` features that is no rows; `before` gets the nodes that make it."""
        if size not in self.sizes:
            entry = next(name for name in self.nodes[0].input if not self.wiring.constant(name))
            self.sizes[size], made = _whole_shape(self.graph, entry, self.known[entry][:-1], size)
            before.extend(made)
        return self.sizes[size]


def _whole_shape(graph: Graph, entry: str, lead: tuple[Dim, ...], size: int) -> tuple[str, list[Any]]:
    """A tensor that holds lead + [size], and the nodes that make it; a constant where at most one size is unknown."""
    if sum(not isinstance(dim, int) for dim in lead) <= 1:
        name = graph.fresh(f"shape_{size}")
        graph.put(name, np.array([*(dim if isinstance(dim, int) else -1 for dim in lead), size], np.int64))
        return name, []
    lead_name, size_name, target = (graph.fresh(f"{entry}_{each}_{size}") for each in ("lead", "size", "shape"))
    graph.put(size_name, np.array([size], np.int64))
    return target, [
        onnx.helper.make_node("Shape", [entry], [lead_name], name=lead_name, end=len(lead)),
        onnx.helper.make_node("Concat", [lead_name, size_name], [target], name=target, axis=0),
    ]
