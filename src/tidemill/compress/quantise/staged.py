"""The layers of a model solved one stage after another, each on what the ones before it make of the data.

Runs in the command line's process. Every answer is kept on disk under the digest of all that led to it, so a run that
was interrupted goes on where it was, and ends with the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tidemill
from tidemill.compress import pipeline, proto_stream
from tidemill.compress.capture import Capture, stages
from tidemill.compress.layer_cache import Answer, LayerCache
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.task import LayerResult
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import RefusedLayer

Solve = Callable[[Layer, Sequence[Captured]], LayerResult]
Asked = Callable[[Layer], object]
"""All that decides a layer's answer beside the graph and the data; its `repr` tells one from another."""
Results = dict[str, LayerResult]
Refused = list[tuple[str, str]]
"""Layers by name, and why."""


def solve_all(bench: Workbench, layers: Sequence[Layer], solve: Solve, asked: Asked) -> tuple[Results, Refused]:
    """Layers that share their weights share a result: each keeps its own bias. `solve` may raise `RefusedLayer`.

    Raises `BadData`, `DiskFull`.
    """
    results: Results = {}
    refused: Refused = []
    settings = bench.settings
    todo = stages(layers)
    cache = LayerCache(settings.work / "layers")
    with Capture(bench.graph, None, todo, bench.data, settings.work, threads=settings.threads,
                 held_rows_max=settings.held_rows_max) as capture:  # fmt: skip
        run = _digest(bench, capture.digest)
        meter = pipeline.Meter(settings, todo)
        for stage in todo:
            keys = {layer.name: pipeline.key(run, f"{layer.name}|{asked(layer)!r}") for layer in stage.layers}
            answers: dict[str, Answer] = {
                name: answer for name, key in keys.items() if (answer := cache.get(key)) is not None
            }
            missing = [layer for layer in stage.layers if layer.name not in answers]
            meter.at(stage, works=bool(missing))
            if missing:
                captured = capture.take(stage, changes=False)
                for layer in missing:
                    answers[layer.name] = _solved(solve, layer, captured[layer.name])
                    cache.put(keys[layer.name], answers[layer.name])
            else:
                capture.skip(stage, changes=False)
            for layer in stage.layers:
                others, answer = stage.shared.get(layer.name, ()), answers[layer.name]
                if isinstance(answer, str):
                    refused += [(each.name, answer) for each in (layer, *others)]
                    continue
                results[layer.name] = answer
                results |= {other.name: replace(answer, bias=bench.graph.bias(other)) for other in others}
        meter.end()
    return results, refused


def _solved(solve: Solve, layer: Layer, captured: Sequence[Captured]) -> Answer:
    try:
        return solve(layer, captured)
    except RefusedLayer as error:
        return error.message


def _digest(bench: Workbench, data: str) -> str:
    """Of what all layers have in common, the version and the source of this package included."""
    found = hashlib.sha256(f"{tidemill.__version__}|{pipeline.source_digest(Path(__file__))}|{data}|".encode())
    for piece in proto_stream.chunks(bench.graph.model, bench.graph.arrays):
        found.update(piece)
    return found.hexdigest()
