"""Self-attention found in a graph, and written as onnxruntime's QAttention: one node for fifteen; runs where graphs do.

Dynamic int8 wins by it, whose small requests spend a good part of their time between nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from tidemill.compress.fuse import MICROSOFT
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.wiring import Dim, Wiring, attribute, shapes
from tidemill.core.tensor import Array

HIDDEN_MIN: Final = -1000.0
"""A mask that adds more than this hides nothing for sure, and stays as it is."""
_HEADS_FIRST: Final = [0, 2, 1, 3]
_KEYS: Final = [0, 2, 3, 1]


@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(q kᵀ + mask) v of `layers` (query, key, value), which read one tensor. `mask` is an integer tensor
    [batch, tokens] that is 0 where nobody looks, and adds `hidden` there; "" without one. `output` is [batch, tokens,
    width]. `whole` is the shape that turns the layers' rows into that, "" where they are no rows. `last` is the node
    that made `output`."""

    layers: tuple[Layer, Layer, Layer]
    heads: int
    mask: str
    hidden: float
    output: str
    whole: str
    last: str


def find(graph: Graph, layers: Mapping[str, Layer]) -> list[Attention]:
    """Those of which all three layers are among `layers`, by name."""
    wiring, known = Wiring(graph), shapes(graph)
    outputs = {}
    for layer in layers.values():
        outputs[graph.node(layer.add).output[0] if layer.add else layer.output] = layer
    found = (_around(wiring, known, outputs, node) for node in graph.nodes if node.op_type == "Softmax")
    return [each for each in found if each is not None]


def _around(
    wiring: Wiring, known: Mapping[str, tuple[Dim, ...]], outputs: Mapping[str, Layer], softmax: Any
) -> Attention | None:
    if attribute(softmax, "axis", -1) not in {-1, 3}:
        return None
    scores, mask, hidden = softmax.input[0], "", 0.0
    add = wiring.made_by(scores, "Add")
    if add is not None:
        for at in (0, 1):
            if wiring.made_by(add.input[at], "MatMul") is not None:
                meant = _mask(wiring, known, add.input[1 - at])
                if meant is None:
                    return None
                scores, (mask, hidden) = add.input[at], meant
                break
    product = wiring.made_by(scores, "MatMul")
    context = wiring.only_reader(softmax.output[0])
    if product is None or wiring.only_reader(scores) is None or context is None or context.op_type != "MatMul":
        return None
    if context.input[0] != softmax.output[0]:
        return None
    turned = wiring.only_reader(context.output[0])
    merged = None if turned is None or not _turns(turned, _HEADS_FIRST) else wiring.only_reader(turned.output[0])
    if merged is None or merged.op_type != "Reshape":
        return None
    sides = [
        _side(wiring, outputs, name, perm)
        for name, perm in (
            (product.input[0], _HEADS_FIRST),
            (product.input[1], _KEYS),
            (context.input[1], _HEADS_FIRST),
        )
    ]
    three = [side for side in sides if side is not None]
    if len(three) < 3 or len({(side[1], side[2]) for side in three}) > 1 or len({side[0].input for side in three}) > 1:
        return None
    query, heads, size, whole = three[0]
    width = heads * size
    shape = wiring.graph.array_or_none(merged.input[1])
    if (
        shape is None
        or shape.tolist() != [0, 0, width]
        or any(side[0].shape != (width, query.shape[1]) for side in three)
    ):
        return None
    if whole and query.shape[1] != width:
        return None
    return Attention((query, three[1][0], three[2][0]), heads, mask, hidden, merged.output[0], whole, merged.name)


def _turns(node: Any, perm: list[int]) -> bool:
    return node.op_type == "Transpose" and list(attribute(node, "perm", [])) == perm


def _side(
    wiring: Wiring, outputs: Mapping[str, Layer], name: str, perm: list[int]
) -> tuple[Layer, int, int, str] | None:
    """(layer, heads, size of one, shape that its rows take first) of one input of attention."""
    turned = wiring.made_by(name, "Transpose")
    split = None if turned is None or not _turns(turned, perm) else wiring.made_by(turned.input[0], "Reshape")
    if turned is None or split is None or any(wiring.only_reader(each) is None for each in (name, turned.input[0])):
        return None
    shape = wiring.graph.array_or_none(split.input[1])
    if shape is None or len(shape) != 4 or shape[:2].tolist() != [0, 0] or min(shape[2:]) < 1:
        return None
    origin, whole = split.input[0], ""
    rows = wiring.made_by(origin, "Reshape")
    if rows is not None:
        origin, whole = rows.input[0], rows.input[1]
    layer = outputs.get(origin)
    alone = all(wiring.only_reader(each) is not None for each in {origin, split.input[0]})
    if layer is None or not alone or layer.shared or (layer.op == "Gemm") != bool(whole):
        return None
    return layer, int(shape[2]), int(shape[3]), whole


def _mask(wiring: Wiring, known: Mapping[str, tuple[Dim, ...]], name: str) -> tuple[str, float] | None:
    """(mask, what it adds) of (1 - mask) · number, [batch, 1, 1, tokens]."""
    product = wiring.made_by(name, "Mul")
    factor = None if product is None else wiring.apart(product)
    if factor is None or factor[1] > HIDDEN_MIN or len(known.get(name, ())) != 4 or known[name][1:3] != (1, 1):
        return None
    absent = wiring.made_by(factor[0], "Sub")
    if absent is None or wiring.scalar(absent.input[0]) != 1.0:
        return None
    name = absent.input[1]
    while (node := wiring.made_by(name, "Cast", "Unsqueeze", "Identity")) is not None:
        name = node.input[0]
    given = {each.name: each.type.tensor_type.elem_type for each in wiring.graph.model.graph.input}
    integers = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    if given.get(name) not in integers or len(known.get(name, ())) != 2:
        return None
    return name, factor[1]


def write(
    graph: Graph, each: Attention, coded: tuple[str, str, str], codes: Array, scales: Array, bias: Array
) -> list[Any]:
    """The nodes that stand for `each`. `coded` are its input's codes, scale and zero point; `codes` int8 [in, 3·width],
    `scales` and `bias` [3·width] are those of query, key and value beside one another."""
    graph.use_domain(MICROSOFT)
    stem = each.layers[0].name
    names = {}
    held = {"codes": codes, "scales": scales.astype(np.float32), "bias": bias, "zero": np.zeros(len(scales), np.int8)}
    for what, array in held.items():
        names[what] = graph.fresh(f"{stem}.attention.{what}")
        graph.put(names[what], array)
    nodes = []
    values, scale, zero = coded
    if each.whole:
        name = graph.fresh(f"{each.output}.codes")
        nodes.append(onnx.helper.make_node("Reshape", [values, each.whole], [name], name=name))
        values = name
    mask = ""
    if each.mask:
        mask = f"{each.mask}.int32"
        if graph.maker(mask) is None:
            first = graph.nodes[0]
            cast = onnx.helper.make_node("Cast", [each.mask], [mask], name=mask, to=onnx.TensorProto.INT32)
            graph.replace({first.name: [cast, onnx.NodeProto.FromString(first.SerializeToString())]})
    inputs = [values, names["codes"], names["bias"], scale, names["scales"], mask, zero, names["zero"]]
    more = {"mask_filter_value": each.hidden} if each.mask else {}
    nodes.append(
        onnx.helper.make_node(
            "QAttention",
            inputs,
            [each.output],
            name=each.last,
            domain=MICROSOFT,
            num_heads=each.heads,
            scale=1.0,
            **more,
        )
    )
    return nodes
