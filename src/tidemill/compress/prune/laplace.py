"""`--method laplace`: weights, N:M patterns or whole units pruned by second order; runs in the command line's process.

Under the expansion that `surgeon.py` prunes by, the weights are Gaussian around the trained ones: `posterior.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tidemill.compress import correct
from tidemill.compress.graph import Graph
from tidemill.compress.hessian import DAMPING, Hessian, hessian
from tidemill.compress.layers import Layer
from tidemill.compress.method import Method, Option, Outcome
from tidemill.compress.moments import Captured
from tidemill.compress.prune import obs
from tidemill.compress.prune.allocation import Curve, allocate
from tidemill.compress.prune.sense import Sense
from tidemill.compress.prune.surgeon import SEARCHES, SOLVER, read_pattern
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe, RefusedLayer
from tidemill.core.tensor import Array

SHARES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
UNITS = ("weights", "ffn", "heads", "channels", "all")

OPTIONS = {
    "sparsity": Option(float, 0.5, "share of the weights, or of the units, to drop", 0.0, 0.99),
    "pattern": Option(str, "none", "N:M keeps at most N of every M neighbouring weights (2:4), instead of a share"),
    "units": Option(
        str, "weights", "what is dropped: single weights, or units that really leave the tensors", choices=UNITS
    ),
    "allocation": Option(
        str, "uniform", "curves gives each layer a sparsity of its own, by what it costs at the model's outputs",
        choices=("uniform", "curves"),
    ),
    "search": Option(
        str, "auto", "how masks are found: auto takes the best that the layer's size allows", choices=SEARCHES
    ),
    "damping": Option(float, DAMPING, "what is added to H's diagonal, as a share of its mean", 1e-6, 10.0),
}  # fmt: skip


def run(bench: Workbench, options: Mapping[str, Any]) -> list[Outcome]:
    """Embeddings are left as they are: a look-up has no H. Raises `InvalidRecipe`."""
    pattern = read_pattern(str(options["pattern"]), float(options["sparsity"]))
    if options["units"] != "weights":
        if pattern.group:
            raise InvalidRecipe("a pattern is for single weights: leave out `pattern`, or take units=weights")
        from tidemill.compress.prune import units

        return [units.run(bench, options)]
    layers = [layer for layer in bench.layers() if layer.op != "Gather"]
    given = {name: options[name] for name in ("sparsity", "pattern", "search", "damping")}
    shares: dict[str, float] = {}
    if options["allocation"] == "curves":
        if pattern.group:
            raise InvalidRecipe("a pattern fixes every layer's sparsity: leave out `allocation`, or `pattern`")
        shares = shares_by_curves(bench, layers, float(options["sparsity"]), float(options["damping"]))
        given["shares"] = shares
    names = {layer.name for layer in layers}
    outcome = bench.layerwise(SOLVER, lambda layer: layer.name in names, given)
    notes = [f"{name} loses {share:.1%} of its weights" for name, share in shares.items()]
    return [replace(outcome, notes=(*outcome.notes, *notes))]


METHOD = Method(
    "laplace",
    "prunes what costs least by second order, the rest making up for it: weights, N:M, heads, FFN columns, channels",
    OPTIONS,
    run=run,
    rolls_back=True,
)


def shares_by_curves(bench: Workbench, layers: Sequence[Layer], share: float, damping: float) -> dict[str, float]:
    """A sparsity for each layer, `share` over all: from each layer's own error at several sparsities, scaled to what
    pruning it alone does to the model's outputs."""
    sense = Sense(bench.graph, bench.data.fit)
    curves = {}
    for stage, moments in bench.stages(layers):
        for layer in stage.layers:
            curves[layer.name] = _curve(bench.graph, layer, moments[layer.name], share, damping, sense)
    return allocate(curves, share)


def _curve(
    graph: Graph, layer: Layer, captured: Sequence[Captured], share: float, damping: float, sense: Sense
) -> Curve:
    weight = graph.weight(layer).astype(np.float64)
    parts = np.split(weight, layer.groups)
    try:
        of: list[Hessian] = [hessian(each.fit, damping, centred=layer.bias is not None) for each in captured]
    except RefusedLayer:
        return Curve(0.0, (0.0, 1.0), (0.0, 0.0))  # the solver says why
    uppers = [each.upper() for each in of]

    def pruned(sparsity: float) -> tuple[list[Array], float]:
        pattern = obs.Pattern(sparsity)
        found = [obs.sweep(part, upper, pattern)[1] for part, upper in zip(parts, uppers, strict=True)]
        losses = [obs.loss(a, b, h.matrix).sum() for a, b, h in zip(parts, found, of, strict=True)]
        return found, float(sum(losses))

    thin, here = pruned(share)
    moved = sense.moved(correct.put(graph, layer, parts, graph.bias(layer), thin, [each.fit.mean for each in captured]))
    errors = [pruned(each)[1] * moved / here if here > 0 else 0.0 for each in SHARES]
    return Curve(float(layer.size), SHARES, errors)
