"""Dynamic int8: each call finds the range of a layer's input; runs in the command line's process.

Written as DynamicQuantizeLinear, shared by layers of one input, and onnxruntime's MatMulIntegerToFloat, which adds the
bias and gives float32: no node in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tidemill.compress.forms import Activation, Uniform
from tidemill.compress.fuse import MICROSOFT
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.quantise import attention, rowwise
from tidemill.compress.quantise.ranges import laid
from tidemill.compress.quantise.staged import solve_all
from tidemill.compress.task import LayerResult
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array


def quantise(
    bench: Workbench, layers: Sequence[Layer], bits: int, per_channel: bool, compensate: bool, fused: bool
) -> tuple[dict[str, LayerResult], list[tuple[str, str]]]:
    """Change the bench's graph in place. Gives the results of its `layers` (MatMul and Gemm), and which were refused
    and why. `fused` writes attention as one node where it can."""
    graph = bench.graph
    refused = [
        (layer.name, "its weights are on the left, or come through a Transpose") for layer in layers if not _fits(layer)
    ]
    layers = [layer for layer in layers if _fits(layer)]
    if not layers:
        return {}, refused

    def solve(layer: Layer, captured: Sequence[Captured]) -> LayerResult:
        seen = captured[0].fit
        # What a call will find is taken to be what all calibration rows show together.
        grid = laid(float(seen.low.min()), float(seen.high.max()))
        return rowwise.solve(
            graph.weight(layer), graph.bias(layer), captured, grid, bits=bits,
            alike=not per_channel, compensate=compensate, written=Activation(dynamic=True),
        )  # fmt: skip

    results, more = solve_all(bench, layers, solve, lambda layer: ("dynamic", bits, per_channel, compensate))
    _write_all(graph, [layer for layer in layers if layer.name in results], results, fused)
    return results, refused + more


def _write_all(graph: Graph, layers: Sequence[Layer], results: Mapping[str, LayerResult], fused: bool) -> None:
    new: dict[str, list[Any]] = {}
    coded: dict[str, tuple[str, str, str]] = {}
    graph.use_domain(MICROSOFT)
    solved = {layer.name: _part(layer, results[layer.name]) for layer in layers}
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


def _part(layer: Layer, result: LayerResult) -> tuple[Layer, Array, Array, Array | None]:
    """With its int8 codes [out, in], its scales and its bias."""
    if not isinstance(result.form, Uniform):
        raise TypeError(f"{layer.name} has no int8 form")  # `rowwise.solve` gives no other
    return layer, (result.form.codes.astype(np.int16) - 128).astype(np.int8), result.form.scales[:, 0], result.bias


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
    nodes = _coded(coded, layer)
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
