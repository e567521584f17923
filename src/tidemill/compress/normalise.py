"""Brings an ONNX graph into the one shape that the rest reads, without changing what it computes; runs where graphs do.

Nodes get names of their own, Constant nodes become initializers, a Transpose or Identity of a constant is carried out,
and Gemm's alpha and beta go into its constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from tidemill.compress.layers import all_nodes, attributes, reads


def constants_to_initializers(model: Any) -> None:
    """Before the arrays are taken out of the model."""
    graph = model.graph
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"} and len(node.attribute) == 1:
            tensor = _constant(node.attribute[0])
            if tensor is not None:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                continue
        kept.append(node)
    if len(kept) < len(graph.node):
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)
    # Up to IR version 3 every initializer had to be an input as well; its default is then what is meant.
    if model.ir_version < 4:
        model.ir_version = 4
        given = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in given]
        del graph.input[:]
        graph.input.extend(inputs)


def _constant(attribute: Any) -> Any:
    if attribute.name == "value":
        return attribute.t
    plain: Callable[[], Any] | None = {
        "value_float": lambda: np.float32(attribute.f),
        "value_floats": lambda: np.array(attribute.floats, np.float32),
        "value_int": lambda: np.int64(attribute.i),
        "value_ints": lambda: np.array(attribute.ints, np.int64),
    }.get(attribute.name)
    return None if plain is None else onnx.numpy_helper.from_array(np.asarray(plain()))


def name_nodes(model: Any) -> None:
    """Every node gets a name, and no two the same; those that have one of their own keep it."""
    taken: set[str] = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for node in model.graph.node:
        name = node.name
        if not name or name in seen:
            stem = name or f"{node.op_type}:{next((o for o in node.output if o), '')}"
            name, count = stem, 1
            while name in taken or name in seen:
                count += 1
                name = f"{stem}_{count}"
        node.name = name
        seen.add(name)


def fold_constants(graph: Any) -> None:
    """Carry out what only rearranges a constant. A constant with other readers keeps its Transpose: a copy would cost
    memory, and hide that the two share their weights."""
    count: dict[str, int] = {}
    for node in graph.nodes:
        for name in reads(node):
            count[name] = count.get(name, 0) + 1
    outputs = {each.name for each in graph.model.graph.output}
    gone = set()
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type == "Identity" and graph.shape(node.input[0]) is not None and node.output[0] not in outputs:
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
            gone.add(node.name)
        elif node.op_type == "Transpose" and count[node.input[0]] == 1 and node.output[0] not in outputs:
            array = graph.array_or_none(node.input[0])
            if array is None or array.dtype != np.float32:
                continue
            order = attributes(node).get("perm")
            graph.put(node.output[0], np.ascontiguousarray(array.transpose(order)))
            graph.drop(node.input[0])
            gone.add(node.name)
    inside = {name for node in graph.nodes for g in _graphs(node) for inner in all_nodes(g) for name in inner.input}
    for name in [name for name in renamed if name in inside]:
        graph.put(name, graph.array(renamed.pop(name)))
    if gone:
        graph.replace({name: [] for name in gone})
        for node in graph.nodes:
            for at, name in enumerate(node.input):
                if name in renamed:
                    node.input[at] = renamed[name]


def _graphs(node: Any) -> list[Any]:
    return [graph for each in node.attribute for graph in ([each.g] if each.HasField("g") else [*each.graphs])]


def plain_gemm(graph: Any) -> None:
    """y = alpha·x·B + beta·C becomes y = x·(alpha·B) + (beta·C), where the constants have no other reader."""
    count: dict[str, int] = {}
    for node in graph.nodes:
        for name in reads(node):
            count[name] = count.get(name, 0) + 1
    for node in graph.nodes:
        if node.op_type != "Gemm":
            continue
        for word, at in (("alpha", 1), ("beta", 2)):
            factor = attributes(node).get(word, 1.0)
            name = node.input[at] if len(node.input) > at else ""
            array = graph.array_or_none(name) if name else None
            if factor != 1.0 and (not name or (array is not None and count[name] == 1 and array.dtype == np.float32)):
                if array is not None:
                    graph.put(name, array * np.float32(factor))
                kept = [each for each in node.attribute if each.name != word]
                del node.attribute[:]
                node.attribute.extend(kept)
