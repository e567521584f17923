"""Moves outliers of activations into weights, where they do less harm (SmoothQuant); runs where graphs do.

x̂ = x / s and Ŵ = W · s, channel by channel, give the same product; with s_c = max|x_c|^α / max|W_c|^(1−α) the channels
of x̂ are about as wide as one another, so that one scale fits them all (Xiao and others, 2023). 1 / s goes into what
makes x where it can (a layer, straight or through attention; a normalisation that nobody else reads), and else becomes
one Mul in front of the quantised input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx

from tidemill.compress.fuse import MOVES
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Histogram
from tidemill.compress.quantise import ranges, rounding
from tidemill.compress.quantise.watch import Seen
from tidemill.compress.wiring import Wiring
from tidemill.core.tensor import Array

SHIFT_MAX: Final = 1e4
"""No channel is scaled by more than this against the mean."""
STRENGTHS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COMPENSATED: Final = 0.4
"""What is left of the weights' rounding error once they make up for one another, about."""
ROWS: Final = 384
"""Rows of each input that strengths are tried on."""
Same = Callable[[Graph], bool]
"""Whether a graph still computes what it should."""


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """`scales` [channels] by which tensor `input` is divided and the weights of `layers` are multiplied; `narrowest`
    is the channel that reaches least far afterwards."""

    input: str
    layers: tuple[Layer, ...]
    scales: Array
    narrowest: int = 0


def shifts(graph: Graph, layers: Sequence[Layer], seen: Mapping[str, Seen], strength: float) -> list[Shift]:
    """What to move for each tensor that only MatMul and Gemm layers of `layers` quantise.

    `strength` 0 finds the best for each tensor, by what its layers lose on the rows that were seen of it.
    """
    by_input: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.op in {"MatMul", "Gemm"} and layer.operand == 1 and not layer.shared:
            by_input.setdefault(layer.input, []).append(layer)
    found = []
    for name, readers in by_input.items():
        weight = np.concatenate([graph.weight(layer) for layer in readers])
        reach = _reach(seen[name])
        scales = _scales(reach, weight, strength) if strength else _best(seen[name], weight)
        if scales is not None:
            found.append(Shift(name, tuple(readers), scales, int(np.argmin(reach / scales))))
    return found


def _reach(seen: Seen) -> Array:
    found: Array = np.maximum(np.abs(seen.low), np.abs(seen.high))
    return found


def _best(seen: Seen, weight: Array) -> Array | None:
    """Wide channels may be wide always, or in a few tokens only: both their reach and their usual size are tried."""
    rows = seen.rows
    best, least = None, _lost(rows, weight, np.ones(rows.shape[1], np.float32))
    for size in (_reach(seen), np.sqrt(seen.square), np.sqrt(_reach(seen) * np.sqrt(seen.square))):
        for strength in STRENGTHS:
            scales = _scales(size, weight, strength)
            if scales is not None and (lost := _lost(rows, weight, scales)) < least:
                best, least = scales, lost
    return best


def _lost(rows: Array, weight: Array, scales: Array) -> float:
    """The squared error of x Wᵀ when both are quantised; that of the weights counts for less, as it will be made up
    for."""
    given, wide = rows / scales, weight * scales
    spread = Histogram()
    spread.add(given, float(given.min()), float(given.max()))
    grid = ranges.choose(spread.counts, spread.edges, "mse")
    steps = rounding.row_scales(wide, 8).astype(np.float32)
    rounded = rounding.nearest(wide, steps, 8) * steps[:, None]
    of_inputs = float(np.square((grid.apply(given) - given) @ wide.T).sum())
    of_weights = float(np.square(given @ (rounded - wide).T).sum())
    return of_inputs + COMPENSATED * of_weights


def _scales(size: Array, weight: Array, strength: float) -> Array | None:
    """float32 [channels] around 1; None where there is nothing to even out."""
    widest = np.abs(weight).max(axis=0).astype(np.float64)
    live = (size > 0) & (widest > 0)
    if size.shape != widest.shape or not live.any():
        return None
    # Narrow channels need no help, and one that is narrow here may be wide in rows to come: widening it is a risk.
    size = np.maximum(size, np.median(size[live]))
    logs = np.zeros(len(size))
    logs[live] = strength * np.log(size[live]) - (1 - strength) * np.log(widest[live])
    logs[live] -= logs[live].mean()
    scales = np.exp(np.clip(logs, -np.log(SHIFT_MAX), np.log(SHIFT_MAX))).astype(np.float32)
    return scales if np.ptp(scales) > 1e-3 else None


def apply(graph: Graph, moves: Sequence[Shift], same: Same, in_front: bool = True) -> tuple[int, int]:
    """Change `graph` in place; how many went into what is there already, and how many became a Mul.

    `same` is asked whether the graph still gives its answers when something was moved through attention, whose shapes
    alone do not prove it; if not, that move becomes a Mul. Without `in_front` no Mul is written.
    """
    folded = 0
    left = []
    for move in moves:
        trial = graph.copy()
        how = _fold(trial, move)
        if how == "no" or (how == "check" and not same(trial)):
            left.append(move)
            continue
        graph.model, graph.arrays = trial.model, trial.arrays
        folded += 1
    if in_front:
        _multiply(graph, left)
    return folded, len(left) if in_front else 0


def _widen(graph: Graph, move: Shift) -> None:
    for layer in move.layers:
        graph.set_dense(layer, graph.weight(layer) * move.scales)


def _fold(graph: Graph, move: Shift) -> str:
    """ "done", "check" (done, if the graph still computes the same), or "no"."""
    wiring = Wiring(graph)
    readers = {layer.name for layer in move.layers}
    if move.input in wiring.outputs or any(node.name not in readers for node in wiring.readers[move.input]):
        return "no"
    norm = wiring.made_by(move.input, "LayerNormalization")
    if norm is not None:
        if len(norm.output) != 1:
            return "no"
        for name in norm.input[1:]:
            values = graph.array_or_none(name)
            if values is None or values.shape != move.scales.shape or len(wiring.readers[name]) != 1:
                return "no"
        for name in norm.input[1:]:
            graph.put(name, graph.array(name) / move.scales)
        _widen(graph, move)
        return "done"
    origin = _through_moves(wiring, move.input)
    product = wiring.made_by(origin, "MatMul")
    how = "done" if origin == move.input else "check"
    if product is not None and not any(wiring.constant(name) for name in product.input):
        if wiring.only_reader(origin) is None:
            return "no"
        origin, how = _through_moves(wiring, product.input[1]), "check"
    for layer in graph.layers():
        output = graph.node(layer.add).output[0] if layer.add else layer.output
        straight = layer.op in {"MatMul", "Gemm"} and layer.operand == 1 and not layer.shared
        if output == origin and straight and layer.shape[0] == len(move.scales):
            if wiring.only_reader(origin) is None and how == "check":
                return "no"
            bias = graph.bias(layer)
            weight = graph.weight(layer) / move.scales[:, None]
            graph.set_dense(layer, weight, None if bias is None else bias / move.scales)
            _widen(graph, move)
            return how
    return "no"


def _through_moves(wiring: Wiring, name: str) -> str:
    while (node := wiring.made_by(name, *MOVES)) is not None and wiring.only_reader(node.input[0]) is not None:
        name = node.input[0]
    return name


def _turned(move: Shift) -> Shift:
    """With one channel's sign changed. OpenVINO takes a Mul by positive numbers into the rounding behind it, which
    then has a range for each channel: a kernel of its own, several times slower than rounding within the
    normalisation's, where a Mul that it cannot take in leaves it."""
    scales = move.scales.copy()
    scales[move.narrowest] *= -1
    return replace(move, scales=scales)


def _multiply(graph: Graph, moves: Sequence[Shift]) -> None:
    wiring = Wiring(graph)
    changes: dict[str, list[Any]] = {}
    for each in moves:
        move = _turned(each) if wiring.made_by(each.input, "LayerNormalization") is not None else each
        factor, output = graph.fresh(f"{move.input}_evening"), graph.fresh(f"{move.input}_even")
        graph.put(factor, (1 / move.scales.astype(np.float64)).astype(np.float32))
        _widen(graph, move)
        readers = {layer.name for layer in move.layers}
        first = next(node for node in graph.nodes if node.name in readers)
        changes[first.name] = [onnx.helper.make_node("Mul", [move.input, factor], [output], name=output)]
        for name in readers:
            node = graph.node(name)
            for at, given in enumerate(node.input):
                if given == move.input:
                    node.input[at] = output
    for name, before in changes.items():
        before.append(onnx.NodeProto.FromString(graph.node(name).SerializeToString()))
    graph.replace(changes)
