"""Dynamic int8: each call finds the range of a layer's input; runs in the command line's process.

Written as DynamicQuantizeLinear, shared by layers of one input, and onnxruntime's MatMulIntegerToFloat, which adds the
bias and gives float32: no node in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx

from tidemill.compress.forms import Activation
from tidemill.compress.fuse import MICROSOFT
from tidemill.compress.graph import Graph
from tidemill.compress.hessian import hessian
from tidemill.compress.layers import Layer
from tidemill.compress.quantise import attention, rounding
from tidemill.compress.quantise.pairs import pairs
from tidemill.compress.quantise.ranges import laid
from tidemill.compress.quantise.static import uniform
from tidemill.compress.quantise.watch import Batches, watch
from tidemill.compress.task import LayerResult
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

DAMPING: Final = 0.01


def quantise(
    graph: Graph,
    layers: Sequence[Layer],
    fit: Batches,
    held: Batches,
    bits: int,
    per_channel: bool,
    compensate: bool,
    fused: bool,
    threads: int,
) -> tuple[dict[str, LayerResult], list[tuple[str, str]]]:
    """Change `graph` in place. Gives the results of its `layers` (MatMul and Gemm), and which were refused and why."""
    refused = [
        (layer.name, "its weights are on the left, or come through a Transpose") for layer in layers if not _fits(layer)
    ]
    layers = [layer for layer in layers if _fits(layer)]
    if not layers:
        return {}, refused
    seen = watch(graph, {layer.input: None for layer in layers}, fit, threads, histograms=False)
    # What a call will find is taken to be what all calibration rows show together.
    grids = {name: laid(float(each.low.min()), float(each.high.max())) for name, each in seen.items()}
    learned, judged = pairs(graph, grids, fit, threads), pairs(graph, grids, held, threads)
    results: dict[str, LayerResult] = {}
    new: dict[str, list[Any]] = {}
    coded: dict[str, tuple[str, str, str]] = {}
    solved: dict[str, tuple[Layer, Array, Array, Array | None]] = {}
    graph.use_domain(MICROSOFT)
    for layer in layers:
        weight, bias = graph.weight(layer), graph.bias(layer)
        pair, other = learned[layer.input], judged.get(layer.input)
        scales = rounding.row_scales(weight, bits, not per_channel)
        try:
            found = hessian(pair.moments, DAMPING)
        except RefusedLayer as error:
            refused.append((layer.name, str(error)))
            continue
        codes = (
            rounding.compensated(weight, scales, bits, found) if compensate else rounding.nearest(weight, scales, bits)
        )
        form = uniform(codes, scales)
        if bias is not None:
            bias = np.asarray(bias + (weight.astype(np.float64) - form.decode()) @ pair.mean, np.float32)
        errors = [0.0 if each is None else each.loss(weight, form.decode()) for each in (pair, other)]
        activation = Activation(dynamic=True)
        results[layer.name] = LayerResult(form, bias, activation, errors[0], errors[1], found.damping, found.notes)
        solved[layer.name] = (layer, codes, scales, bias)
    for each in attention.find(graph, {name: found[0] for name, found in solved.items()}) if fused else []:
        parts = [solved.pop(layer.name) for layer in each.layers]
        before = _coded(coded, each.layers[0])
        beside = [np.zeros(len(part[2]), np.float32) if part[3] is None else part[3] for part in parts]
        columns = np.concatenate([part[1] for part in parts])
        after = attention.write(
            graph, each, coded[each.layers[0].input], np.ascontiguousarray(columns.T),
            np.concatenate([part[2] for part in parts]), np.concatenate(beside),
        )  # fmt: skip
        new[each.last] = [*before, *after]
    for layer, codes, scales, bias in solved.values():
        _write(graph, new, coded, layer, codes, scales, bias)
    graph.replace(new)
    graph.drop_unused()
    return results, refused


def _fits(layer: Layer) -> bool:
    return layer.operand == 1 and not layer.through


def _coded(coded: dict[str, tuple[str, str, str]], layer: Layer) -> list[Any]:
    """What quantises the layer's input, where nothing does yet."""
    if layer.input in coded:
        return []
    names = (f"{layer.input}.codes", f"{layer.input}.scale", f"{layer.input}.zero")
    coded[layer.input] = names
    return [onnx.helper.make_node("DynamicQuantizeLinear", [layer.input], list(names), name=names[0])]


def _write(
    graph: Graph,
    new: dict[str, list[Any]],
    coded: dict[str, tuple[str, str, str]],
    layer: Layer,
    codes: Array,
    scales: Array,
    bias: Array | None,
) -> None:
    node = graph.node(layer.name)
    nodes = []
    if layer.input not in coded:
        names = tuple(f"{layer.input}.{what}" for what in ("codes", "scale", "zero"))
        coded[layer.input] = (names[0], names[1], names[2])
        nodes.append(
            onnx.helper.make_node("DynamicQuantizeLinear", [layer.input], list(names), name=f"{layer.input}.codes")
        )
    values, scale, zero = coded[layer.input]
    held = {f"{layer.name}.codes": np.ascontiguousarray(codes.T), f"{layer.name}.scales": scales.astype(np.float32)}
    for name, array in held.items():
        graph.put(name, array)
    inputs = [values, f"{layer.name}.codes", scale, f"{layer.name}.scales", zero]
    output = node.output[0]
    if bias is not None:
        graph.put(f"{layer.name}.bias8", bias)
        inputs += ["", f"{layer.name}.bias8"]
        if layer.add:
            output = graph.node(layer.add).output[0]
            new[layer.add] = []
    nodes.append(onnx.helper.make_node("MatMulIntegerToFloat", inputs, [output], name=layer.name, domain=MICROSOFT))
    new[layer.name] = nodes
