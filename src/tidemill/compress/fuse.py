"""Rewrites of a float graph that change nothing but its speed: a first step of `int8`; runs where graphs do.

Every form written here runs on stock onnxruntime, and gives what the graph gave before to within rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from tidemill.compress import rows
from tidemill.compress.graph import Graph
from tidemill.compress.wiring import Wiring

MICROSOFT = "com.microsoft"
OPSET_OF_GELU = 20
MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Identity")
"""Nodes that move values and change none."""


def fuse(graph: Graph) -> list[str]:
    """Change `graph` in place; sentences on what was done, for the report."""
    done = [
        (gelu(graph), "GELU written as one node instead of five"),
        (scale(graph), "attention's division folded into the query's weights"),
        (rows.flatten(graph), "layer computed on rows [tokens, features], its bias inside"),
    ]
    return [f"{count} × {words}" for count, words in done if count]


def gelu(graph: Graph) -> int:
    """x/2 · (1 + erf(x/√2)), however its factors are grouped, as one Gelu; how many were found."""
    wiring = Wiring(graph)
    changes: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.op_type != "Erf":
            continue
        found = _gelu_around(wiring, node)
        if found is None:
            continue
        x, last = found
        standard = graph.opset() >= OPSET_OF_GELU
        if not standard:
            graph.use_domain(MICROSOFT)
        domain = "" if standard else MICROSOFT
        changes[last.name] = [onnx.helper.make_node("Gelu", [x], list(last.output), name=last.name, domain=domain)]
    if changes:
        graph.replace(changes)
        graph.drop_unused()
    return len(changes)


def _gelu_around(wiring: Wiring, erf: Any) -> tuple[str, Any] | None:
    """(x, last node) of the GELU that `erf` is part of."""
    scaled = wiring.made_by(erf.input[0], "Div", "Mul")
    known = None if scaled is None else wiring.apart(scaled)
    if scaled is None or known is None:
        return None
    x, factor = known
    if scaled.op_type == "Div":
        factor = 1 / factor if factor else 0.0
    add = wiring.only_reader(erf.output[0])
    one = None if add is None or add.op_type != "Add" else wiring.apart(add)
    if (
        add is None
        or not math.isclose(factor, math.sqrt(0.5), rel_tol=1e-4)
        or one is None
        or not math.isclose(one[1], 1.0)
    ):
        return None
    # What is left is a product of x, this sum and a half, in any order.
    at, half_seen, x_seen = str(add.output[0]), False, False
    node: Any = None
    for _ in range(2):
        node = wiring.only_reader(at)
        if node is None or node.op_type != "Mul":
            return None
        other = node.input[1] if node.input[0] == at else node.input[0]
        if wiring.scalar(other) is not None and not half_seen:
            half_seen = math.isclose(wiring.scalar(other) or 0.0, 0.5)
        elif other == x and not x_seen:
            x_seen = True
        else:
            inner = wiring.made_by(other, "Mul")
            known = None if inner is None else wiring.apart(inner)
            if known is None or known[0] != x or not math.isclose(known[1], 0.5):
                return None
            return x, node
        at = str(node.output[0])
    return (x, node) if half_seen and x_seen else None


def scale(graph: Graph) -> int:
    """softmax(q·kᵀ/√d): the number goes into the weights of the layer that makes q; how many times that was done."""
    wiring = Wiring(graph)
    layers = {layer.name: layer for layer in graph.layers()}
    by_output = {(graph.node(layer.add).output[0] if layer.add else layer.output): layer for layer in layers.values()}
    changes: dict[str, list[Any]] = {}
    for node in graph.nodes:
        known = wiring.apart(node) if node.op_type in {"Div", "Mul"} else None
        product = None if known is None else wiring.made_by(known[0], "MatMul")
        if known is None or product is None or wiring.only_reader(known[0]) is None:
            continue
        if any(wiring.constant(name) for name in product.input):
            continue
        layer = by_output.get(_origin(wiring, product.input[0]))
        number = 1 / known[1] if node.op_type == "Div" and known[1] else known[1]
        if layer is None or layer.shared or not np.isfinite(number) or number == 0:
            continue
        bias = graph.bias(layer)
        factor = np.float32(number)
        graph.set_dense(layer, graph.weight(layer) * factor, None if bias is None else bias * factor)
        changes[product.name] = []
        kept = onnx.NodeProto.FromString(product.SerializeToString())
        kept.output[0] = node.output[0]
        changes[product.name], changes[node.name] = [kept], []
    if changes:
        graph.replace(changes)
        graph.drop_unused()
    return len(changes) // 2


def _origin(wiring: Wiring, name: str) -> str:
    """The tensor whose values `name` has in another order; the name itself where others read them too."""
    while (node := wiring.made_by(name, *MOVES)) is not None and wiring.only_reader(node.input[0]) is not None:
        name = node.input[0]
    return name
