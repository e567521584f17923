"""A part of a model as a model of its own: from some tensors to others; runs where graphs do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tidemill.compress.layers import reads
from tidemill.core.tensor import Array

if TYPE_CHECKING:
    from tidemill.compress.graph import Graph


def needed(graph: Graph, outputs: Iterable[str], given: Iterable[str] = ()) -> list[Any]:
    """The nodes, in the graph's order, that make `outputs` when `given` tensors are there already."""
    maker = {name: node for node in graph.nodes for name in node.output if name}
    have = set(given)
    wanted: set[str] = set()
    waiting = [name for name in outputs if name not in have]
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.name in wanted:
            continue
        wanted.add(node.name)
        waiting.extend(name for name in reads(node) if name not in have)
    return [node for node in graph.nodes if node.name in wanted]


def cut(
    graph: Graph, outputs: Iterable[str] | None, given: Mapping[str, np.dtype[Any]]
) -> tuple[Any, dict[str, Array]]:
    """A model that makes `outputs` (None: the graph's own) from the graph's inputs and from `given` tensors, and the
    arrays of its initializers. Only what it needs is in it."""
    whole = graph.model
    own = {each.name: each for each in whole.graph.output}
    outputs = list(own) if outputs is None else list(dict.fromkeys(outputs))
    nodes = needed(graph, outputs, given)
    read = set(outputs).union(*(reads(node) for node in nodes)) if nodes else set(outputs)
    part = onnx.ModelProto(ir_version=whole.ir_version, producer_name=whole.producer_name)
    part.opset_import.extend(whole.opset_import)
    part.functions.extend(whole.functions)
    part.graph.name = whole.graph.name or "part"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(each for each in whole.graph.initializer if each.name in read - set(given))
    part.graph.sparse_initializer.extend(
        each for each in whole.graph.sparse_initializer if each.values.name in read - set(given)
    )
    part.graph.input.extend(each for each in whole.graph.input if each.name in read and each.name not in given)
    for name, dtype in given.items():
        if name in read:
            code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            part.graph.input.append(onnx.helper.make_tensor_value_info(name, code, None))
    # onnxruntime finds the type of an output that does not say it.
    part.graph.output.extend(own.get(name) or onnx.ValueInfoProto(name=name) for name in outputs)
    return part, {name: array for name, array in graph.arrays.items() if name in read and name not in given}
