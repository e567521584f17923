"""The layers of a model solved one stage after another, each on what the ones before it make of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.task import LayerResult
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import RefusedLayer

Solve = Callable[[Layer, Sequence[Captured]], LayerResult]
Results = dict[str, LayerResult]
Refused = list[tuple[str, str]]
"""Layers by name, and why."""


def solve_all(bench: Workbench, layers: Sequence[Layer], solve: Solve) -> tuple[Results, Refused]:
    """Layers that share their weights share a result: each keeps its own bias. `solve` may raise `RefusedLayer`."""
    results: Results = {}
    refused: Refused = []
    for stage, captured in bench.stages(layers, told=True):
        for layer in stage.layers:
            others = stage.shared.get(layer.name, ())
            try:
                result = solve(layer, captured[layer.name])
            except RefusedLayer as error:
                refused += [(each.name, error.message) for each in (layer, *others)]
                continue
            results[layer.name] = result
            results |= {other.name: replace(result, bias=bench.graph.bias(other)) for other in others}
    return results, refused
