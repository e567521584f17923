"""Computes the layers of a transformer on rows [tokens, features] instead of [batch, tokens, features].

Runs where graphs do. As rows, a MatMul and the Add of its bias are one Gemm, which engines quantise with its bias
inside. Between layers, what works along the last axis alone (normalisation, activation, residual) stays on rows, so
tensors are reshaped only where a region of such nodes begins and ends: that moves no data.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        changed += _flatten(graph, wiring, known, layers, region)
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


def _flatten(
    graph: Graph, wiring: Wiring, known: dict[str, tuple[Dim, ...]], layers: dict[str, Layer], region: list[Any]
) -> int:
    inside = {name for node in region for name in node.output}
    names = {node.name for node in region}
    as_rows: dict[str, str] = {}
    changes: dict[str, list[Any]] = {}
    biased = {layers[node.name].add for node in region if node.name in layers and layers[node.name].add} & names
    first = region[0]
    entry = next(name for name in first.input if not wiring.constant(name))
    lead = known[entry][:-1]
    sizes: dict[int, tuple[str, list[Any]]] = {}

    def width(name: str) -> int:
        size = known[name][-1]
        assert isinstance(size, int)  # `_flat` saw to it
        return size

    def rows_of(name: str, before: list[Any]) -> str:
        """The rows of a tensor; those of one from outside are made in front of the node that wants them first."""
        if wiring.constant(name) or name in as_rows:
            return as_rows.get(name, name)
        target = graph.fresh(f"{name}_rows")
        shape = graph.fresh(f"{name}_rows_shape")
        graph.put(shape, np.array([-1, width(name)], np.int64))
        before.append(onnx.helper.make_node("Reshape", [name, shape], [target], name=target))
        as_rows[name] = target
        return target

    def whole_shape(size: int, before: list[Any]) -> str:
        if size not in sizes:
            sizes[size] = _whole_shape(graph, entry, lead, size)
            before.extend(sizes[size][1])
        return sizes[size][0]

    for node in region:
        output = node.output[0]
        layer = layers.get(node.name)
        if node.name in biased:  # its MatMul has become a Gemm that adds the bias itself
            changes[node.name] = []
            continue
        new: list[Any] = []
        if layer is not None:
            add = next((each for each in region if each.name == layer.add), None)
            output = output if add is None else add.output[0]
            terms = [rows_of(node.input[0], new), layer.weight]
            if add is not None and layer.bias is not None:
                terms.append(layer.bias)
            made = onnx.helper.make_node("Gemm", terms, [output], name=node.name)
        else:
            made = onnx.NodeProto.FromString(node.SerializeToString())
            for at, name in enumerate(node.input):
                made.input[at] = rows_of(name, new)
            if node.op_type == "LayerNormalization":
                kept = [each for each in made.attribute if each.name != "axis"]
                del made.attribute[:]
                made.attribute.extend([*kept, onnx.helper.make_attribute("axis", -1)])
        wanted = output in wiring.outputs or any(each.name not in names for each in wiring.readers.get(output, []))
        as_rows[output] = graph.fresh(f"{output}_rows")
        made.output[0] = as_rows[output]
        new.append(made)
        if wanted:
            target = whole_shape(width(output), new)
            name = graph.fresh(f"{output}_whole")
            new.append(onnx.helper.make_node("Reshape", [as_rows[output], target], [output], name=name))
        changes[node.name] = new
    assert inside  # a region has nodes
    graph.replace(changes)
    return sum(node.name in layers for node in region)


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
