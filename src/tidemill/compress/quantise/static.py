"""Static int8: every layer's input has one scale, found on calibration data; runs in the command line's process.

Smoothing first (it changes the float graph and not its answers), then ranges and moments of what the layers see, then
weights, then one edit of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidemill.compress.forms import Activation, Uniform
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.quantise import ranges, rowwise
from tidemill.compress.quantise.qdq import Writer
from tidemill.compress.quantise.sites import Product, origin, products, through
from tidemill.compress.quantise.staged import solve_all
from tidemill.compress.quantise.watch import watch
from tidemill.compress.task import LayerResult
from tidemill.compress.wiring import Wiring
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True)
class Plan:
    """What the options of `int8` say about static quantisation."""

    choice: str = "mse"
    weight_bits: int = 8
    per_channel: bool = True
    attention: bool = True
    compensate: bool = True


def quantise(
    bench: Workbench, layers: Sequence[Layer], plan: Plan
) -> tuple[dict[str, LayerResult], list[tuple[str, str]]]:
    """Change the bench's graph in place: its `layers` (MatMul, Gemm, Conv) compute in int8. Gives their results, and
    which were refused and why."""
    graph = bench.graph
    refused = [(layer.name, why) for layer in layers if (why := _unfit(graph, layer))]
    without = {name for name, _ in refused}
    layers = [layer for layer in layers if layer.name not in without]
    if not layers:
        return {}, refused
    both = products(graph, {layer.name for layer in layers}) if plan.attention else []
    coded = through(graph, layers)
    signed = _signed(graph, layers, both)
    grids = _grids(bench, layers, both, coded, plan, signed)

    def solve(layer: Layer, captured: Sequence[Captured]) -> LayerResult:
        return rowwise.solve(
            graph.weight(layer), graph.bias(layer), captured, grids[layer.input, False],
            bits=plan.weight_bits, compensate=plan.compensate,
            alike=not plan.per_channel or (layer.operand == 0 and layer.op == "MatMul"),
        )  # fmt: skip

    solved, more = solve_all(bench, layers, solve, lambda layer: ("static", plan, grids[layer.input, False]))
    results = {
        layer.name: replace(solved[layer.name], activation=grids[layer.input, False])
        for layer in layers
        if layer.name in solved
    }
    kept = [layer for layer in layers if layer.name in results]
    _write(graph, kept, results, grids, both, coded, signed & {layer.output for layer in kept})
    return results, refused + more


def _unfit(graph: Graph, layer: Layer) -> str:
    if layer.through:
        return "its weights come through a Transpose"
    if layer.op == "Gemm" and any(each.name in {"transA", "alpha"} for each in graph.node(layer.name).attribute):
        return "its Gemm turns or scales its input"
    return ""


def _grids(
    bench: Workbench,
    layers: Sequence[Layer],
    both: Sequence[Product],
    coded: Sequence[str],
    plan: Plan,
    apart: Collection[str],
) -> dict[tuple[str, bool], Activation]:
    """By tensor and whether its codes are signed."""
    wanted: dict[tuple[str, bool], None] = {(layer.input, False): None for layer in layers}
    wanted |= {(name, False): None for name in coded}
    wanted |= {(each.left, each.left in apart): None for each in both} | {(each.right, True): None for each in both}
    axes: dict[str, int | None] = dict.fromkeys(name for name, _ in wanted)
    axes |= {layer.input: -1 for layer in layers if layer.op != "Conv" and layer.operand == 1}
    wiring = Wiring(bench.graph)
    seen = watch(bench.graph, axes, bench.data.fit, bench.settings.work, bench.settings.threads)
    grids = {}
    for name, signed in wanted:
        # Most shares of attention are small, and the widest of them decide nothing: cut whatever `choice` says.
        choice, cut = ("mse", 1.0) if wiring.made_by(name, "Softmax") else (plan.choice, ranges.CUT)
        grids[name, signed] = ranges.choose(seen[name].histogram, seen[name].edges, choice, signed, cut=cut)
    return grids


def _write(
    graph: Graph,
    layers: Sequence[Layer],
    results: Mapping[str, LayerResult],
    grids: Mapping[tuple[str, bool], Activation],
    both: Sequence[Product],
    coded: Sequence[str],
    apart: Collection[str],
) -> None:
    """`apart` are the outputs of layers whose bias is added behind them."""
    wiring = Wiring(graph)
    by_output = {layer.output: layer for layer in layers}
    writer = Writer(graph)
    done = set()
    for name in coded:
        readers = [
            (node.name, at)
            for node in wiring.readers.get(name, [])
            for at, each in enumerate(node.input)
            if each == name
        ]
        writer.activation(name, list(dict.fromkeys(readers)), grids[name, False], False)
        done.add(name)
    edges: dict[str, list[tuple[str, int]]] = {}
    for layer in layers:
        if layer.input not in done:
            edges.setdefault(layer.input, []).append((layer.name, 0 if layer.operand else 1))
    made = {graph.node(each.node).output[0] for each in both}
    for name, readers in edges.items():
        maker, moves = origin(wiring, name)
        if maker in made and len(readers) == 1 and moves:
            writer.moved(*readers[0], moves, grids[name, False], False)
        else:
            writer.activation(name, readers, grids[name, False], False)
    for layer in layers:
        _write_layer(graph, writer, layer, results[layer.name], split=layer.output in apart)
    for each in both:
        sides = ((each.left, each.left_moves, each.left in apart), (each.right, each.right_moves, True))
        for at, (name, moves, is_signed) in enumerate(sides):
            grid = grids[name, is_signed]
            if name in apart:
                writer.moved(each.node, at, moves, grid, True, results[by_output[name].name].bias)
            else:
                writer.activation(graph.node(each.node).input[at], [(each.node, at)], grid, is_signed)
    writer.finish()


def _signed(graph: Graph, layers: Sequence[Layer], both: Sequence[Product]) -> set[str]:
    """Outputs of layers that are a side of a product, and int8 for it. onnxruntime joins QuantizeLinear to the Gemm
    before it, and then has no kernel for int8: the bias's Add is what keeps them apart, so there must be one, and a
    Reshape for it to follow."""
    by_output = {layer.output: layer for layer in layers}
    found = set()
    for each in both:
        for name, moves in ((each.left, each.left_moves), (each.right, each.right_moves)):
            layer = by_output.get(name)
            if layer is None or layer.op != "Gemm" or layer.bias is None or not moves:
                continue
            if graph.node(moves[0]).op_type == "Reshape":
                found.add(name)
    return found


def _write_layer(graph: Graph, writer: Writer, layer: Layer, result: LayerResult, split: bool) -> None:
    form, grid = result.form, result.activation
    if not isinstance(form, Uniform) or grid is None:
        raise TypeError(f"{layer.name} has no int8 form")  # `rowwise.solve` gives no other
    codes = (form.codes.astype(np.int16) - 128).astype(np.int8)
    scales = form.scales[:, 0]
    stored = graph.array(layer.weight)
    if layer.op == "Conv":
        writer.weight((layer.name, 1), codes.reshape(stored.shape), scales, 0)
    elif layer.operand == 0:
        writer.weight((layer.name, 0), codes if layer.out_major else np.ascontiguousarray(codes.T), scales[:1], None)
    else:
        axis = 0 if layer.out_major else 1
        writer.weight((layer.name, 1), codes if axis == 0 else np.ascontiguousarray(codes.T), scales, axis)
    if result.bias is None:
        return
    if split:
        writer.unbiased(layer.name, 2)
    elif layer.op in {"Gemm", "Conv"}:
        writer.bias(layer.name, 2, result.bias, scales.astype(np.float64) * grid.scale)
    elif layer.bias is not None:
        given = graph.array(layer.bias)
        writer.constant(
            layer.add, layer.bias, result.bias.reshape(given.shape) if given.size == result.bias.size else result.bias
        )


Checked = Callable[[Graph], bool]


def alike(graph: Graph, batch: Mapping[str, Array], threads: int, tolerance: float = 1e-3) -> Checked:
    """Whether another graph gives `graph`'s answers on `batch`, to within `tolerance` of each output's largest."""
    before = _answers(graph, batch, threads)

    def same(other: Graph) -> bool:
        return all(
            np.allclose(a, b, rtol=0, atol=tolerance * max(float(np.abs(a).max(initial=0)), 1e-6))
            for a, b in zip(before, _answers(other, batch, threads), strict=True)
            if a.dtype.kind == "f"
        )

    return same


def _answers(graph: Graph, batch: Mapping[str, Array], threads: int) -> list[Any]:
    session = graph.session(None, threads)
    names = {each.name for each in session.get_inputs()}
    return list(session.run(None, {name: array for name, array in batch.items() if name in names}))
