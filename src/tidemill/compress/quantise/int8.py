"""`int8`: weights and activations of 8 bits, static or dynamic; runs in the command line's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tidemill.compress import fuse
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer, LeftAlone, reasons
from tidemill.compress.method import Method, Option, Outcome
from tidemill.compress.quantise import dynamic, embedding, ranges, sites, smooth, static
from tidemill.compress.quantise.qdq import OPSET_MIN
from tidemill.compress.quantise.watch import watch
from tidemill.compress.task import LayerResult
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe

OPTIONS: Final = {
    "dynamic": Option(bool, False, "find each input's range in every call, instead of once on calibration data"),
    "smooth": Option(bool, True, "move activations' outliers into weights (SmoothQuant)"),
    "strength": Option(float, 0.0, "how much of them is moved; 0 tries several for each input", 0.0, 1.0),
    "smooth_in_front": Option(bool, True, "multiply where nothing before the input can take the outliers' scales up"),
    "range": Option(str, "mse", "how activations' ranges are chosen", choices=ranges.CHOICES),
    "per_channel": Option(bool, True, "a scale for each row of weights, instead of one for all"),
    "reduce_range": Option(bool, False, "7-bit weights, for processors without VNNI, whose 16-bit sums overflow"),
    "compensate": Option(bool, True, "weights make up for the rounding of those before them"),
    "attention": Option(
        bool, True, "static: attention's products in int8 too; dynamic: attention as one node of onnxruntime"
    ),
    "embeddings": Option(bool, True, "embeddings as int8, a scale for each row"),
}


def run(bench: Workbench, options: Mapping[str, Any]) -> list[Outcome]:
    """Raises `BadData`, and `InvalidRecipe` where no layer of the step can be quantised."""
    given = METHOD.settle(options)
    graph = _raised(bench.graph)
    asked = {layer.name for layer in bench.layers()}
    notes = fuse.fuse(graph)
    results: dict[str, LayerResult] = {}
    refused: list[tuple[str, str]] = []
    if given["embeddings"]:
        tables = [layer for layer in graph.layers() if layer.op == "Gather" and layer.name in asked]
        refused += [(layer.name, "other layers use its weights too") for layer in tables if layer.shared]
        results = {layer.name: embedding.quantise(graph, layer) for layer in tables if not layer.shared}
    if given["smooth"]:
        notes += _smoothed(graph, _smoothable(graph, asked, given["dynamic"]), given, bench)
    bits = 7 if given["reduce_range"] else 8
    changing = replace(bench, graph=graph)
    if given["dynamic"]:
        layers = _chosen(graph, asked, matrices=True)
        found, more = dynamic.quantise(
            changing, layers, bits, given["per_channel"], given["compensate"], given["attention"]
        )
        refused += [
            (layer.name, "a convolution is slower with dynamic int8 than in float")
            for layer in _chosen(graph, asked)
            if layer.op == "Conv"
        ]
    else:
        plan = static.Plan(given["range"], bits, given["per_channel"], given["attention"], given["compensate"])
        found, more = static.quantise(changing, _chosen(graph, asked), plan)
    results.update(found)
    refused += more
    ops = {layer.name: layer.op for layer in bench.graph.layers()}
    left = [*(LeftAlone(name, ops.get(name, ""), why) for name, why in refused), *bench.graph.left_alone()]
    if not results:
        told = reasons(left) or "it has no layers"
        raise InvalidRecipe(f"no layer of the model can be quantised to int8: {told}")
    return [Outcome(graph, results, notes=tuple(notes), left=tuple(left))]


def _raised(graph: Graph) -> Graph:
    """A copy, of an opset in which scales may be per channel."""
    if graph.opset() >= OPSET_MIN:
        return graph.copy()
    import onnx

    try:
        return Graph.from_model(onnx.version_converter.convert_version(graph.to_model(), OPSET_MIN))
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidRecipe(
            f"the model is of opset {graph.opset()}, int8 needs {OPSET_MIN}, and onnx cannot convert it ({error}): "
            "export it anew"
        ) from error


def _chosen(graph: Graph, asked: set[str], matrices: bool = False) -> list[Layer]:
    ops = {"MatMul", "Gemm"} if matrices else {"MatMul", "Gemm", "Conv"}
    return [layer for layer in graph.layers() if layer.name in asked and layer.op in ops]


def _smoothable(graph: Graph, asked: set[str], is_dynamic: bool) -> list[Layer]:
    """Where codes go straight from kernel to kernel, a multiplication in between would cost more than it brings."""
    matrices = _chosen(graph, asked, matrices=True)
    if is_dynamic:
        return matrices
    coded = sites.through(graph, _chosen(graph, asked))
    return [layer for layer in matrices if sites.source(graph, layer.input) not in coded]


def _smoothed(graph: Graph, layers: Sequence[Layer], given: Mapping[str, Any], bench: Workbench) -> list[str]:
    if not layers:
        return []
    fit, threads = bench.data.fit, bench.settings.threads
    inputs: dict[str, int | None] = {layer.input: -1 for layer in layers}
    strength = given["strength"]
    seen = watch(
        graph, inputs, fit, bench.settings.work, threads, 0 if strength else smooth.ROWS, bench.seed, given["dynamic"]
    )
    moves = smooth.shifts(graph, layers, seen, strength)
    first = next(iter(fit))  # `watch` saw that there is one
    folded, multiplied = smooth.apply(graph, moves, static.alike(graph, first, threads), given["smooth_in_front"])
    return [f"{folded} inputs smoothed within layers before them, {multiplied} by a multiplication"] if moves else []


METHOD = Method("int8", "8-bit weights and activations, static or dynamic", OPTIONS, run=run, rolls_back=True)
