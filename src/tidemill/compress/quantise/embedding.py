"""Embeddings as int8 with one scale a row: rows are decoded as they are looked up; runs where graphs do."""

from __future__ import annotations

import numpy as np
import onnx

from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.quantise import rounding
from tidemill.compress.quantise.rowwise import uniform
from tidemill.compress.task import LayerResult

BITS = 8


def quantise(graph: Graph, layer: Layer) -> LayerResult:
    """Change `graph` in place: Gather of the codes, Cast, and Mul by the Gather of the scales."""
    weight = graph.weight(layer)
    scales = rounding.row_scales(weight, BITS)
    codes = rounding.nearest(weight, scales, BITS)
    node = graph.node(layer.name)
    indices, output = node.input[1], node.output[0]
    held = {f"{layer.weight}.codes": codes, f"{layer.weight}.scales": scales.astype(np.float32)[:, None]}
    names = []
    for stem, array in held.items():
        names.append(graph.fresh(stem))
        graph.put(names[-1], array)
    rows, values, scale = (graph.fresh(f"{output}.{what}") for what in ("codes", "values", "scale"))
    graph.replace({
        layer.name: [
            onnx.helper.make_node("Gather", [names[0], indices], [rows], name=layer.name, axis=0),
            onnx.helper.make_node("Gather", [names[1], indices], [scale], name=scale, axis=0),
            onnx.helper.make_node("Cast", [rows], [values], name=values, to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [values, scale], [output], name=graph.fresh(f"{output}.decoded")),
        ]
    })  # fmt: skip
    form = uniform(codes, scales)
    whole = float(np.square(weight, dtype=np.float64).sum())
    lost = float(np.square(weight.astype(np.float64) - form.decode()).sum()) / whole if whole else 0.0
    return LayerResult(form, None, None, lost, lost)
