"""A model around the point where it is: every layer's moments there, its target, and what it costs the model's answers.

Runs in the command line's process; moments are held one stage at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.compress import correct
from tidemill.compress.capture import Capture, stages
from tidemill.compress.graph import Graph
from tidemill.compress.hessian import Hessian, hessian
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.pipeline import Step
from tidemill.compress.prune import obs
from tidemill.compress.prune.obs import Pattern
from tidemill.compress.prune.slices import Slice
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

FLOOR = 0.05
"""A layer whose effect could not be measured (its noise is below that of others) counts for at least this share of what
it did when the model was dense: nothing is free."""


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """One layer there: for each of its groups the weights it should have, float64 [out, in], and the H of its inputs.
    `uppers` are `Hessian.upper()`."""

    layer: Layer
    weights: list[Array]
    of: list[Hessian]
    uppers: list[Array]
    means: list[Array]
    bias: Array | None

    def pruned(self, pattern: Pattern) -> list[Array]:
        """By one sweep: quick, and near enough to say what it costs."""
        return [obs.sweep(w, upper, pattern)[1] for w, upper in zip(self.weights, self.uppers, strict=True)]

    def loss(self, pruned: Sequence[Array]) -> float:
        each = zip(self.weights, pruned, self.of, strict=True)
        return sum(float(obs.loss(weight, other, h.matrix).sum()) for weight, other, h in each)

    def put(self, graph: Graph, pruned: Sequence[Array]) -> Graph:
        """A copy of `graph` with these weights, the bias made to fit."""
        return correct.put(graph, self.layer, self.weights, self.bias, pruned, self.means)


def layers_of(bench: Workbench) -> list[Layer]:
    """Those that can be pruned by second order: a look-up has no H."""
    return [layer for layer in bench.layers() if layer.op != "Gather"]


def distinct(layers: Sequence[Layer]) -> list[Layer]:
    """Of layers that share weights the first alone, which is solved for all."""
    found: dict[str, Layer] = {}
    for layer in layers:
        found.setdefault(layer.weight, layer)
    return list(found.values())


def spots(bench: Workbench, now: Graph, damping: float, what: str = "looking at the layers") -> Iterator[Spot]:
    """The layers of the step in the model `now`, which came from `bench.graph`. Layers whose moments cannot be used are
    left out: the solver says why. Tells the progress."""
    todo = stages(layers_of(bench))
    settings, moved = bench.settings, now is not bench.graph
    started, done, total = settings.clock(), 0, sum(len(stage.layers) for stage in todo)
    with Capture(bench.graph, now if moved else None, todo, bench.data, settings.work, threads=settings.threads,
                 held_rows_max=1) as capture:  # fmt: skip
        for stage in todo:
            captured = capture.take(stage, changes=moved)
            for layer in stage.layers:
                if layer.op != "Gather":
                    with contextlib.suppress(RefusedLayer):
                        spot = _spot(bench.graph, layer, captured[layer.name], damping)
                        yield spot
                done += 1
                if settings.progress is not None:
                    spent = settings.clock() - started
                    settings.progress(Step(done, total, what, spent, spent / done * (total - done)))


def _spot(base: Graph, layer: Layer, captured: Sequence[Captured], damping: float) -> Spot:
    whole, bias = base.weight(layer), base.bias(layer)
    rows = layer.shape[0]
    weights, shifts = [], []
    for group, each in enumerate(captured):
        part = slice(group * rows, (group + 1) * rows)
        weight, shift = correct.target(whole[part], None if bias is None else bias[part], each)
        weights.append(weight.astype(np.float64))
        shifts.append(shift)
    of = [hessian(each.fit, damping, centred=bias is not None) for each in captured]
    return Spot(
        layer, weights, of, [each.upper() for each in of], [each.fit.mean for each in captured],
        None if bias is None else np.concatenate([shift for shift in shifts if shift is not None]),
    )  # fmt: skip


def effect(spot: Spot, probe: Pattern, bench: Workbench, seen: Slice) -> Array:
    """What each of the model's answers loses for every unit of this layer's loss: the layer alone pruned by `probe`."""
    pruned = spot.pruned(probe)
    loss = spot.loss(pruned)
    return seen.lost(spot.put(bench.graph, pruned)) / loss if loss > 0 else np.zeros(len(seen.names))


def effect_within(spot: Spot, now: Graph, lost: Array, loss: float, before: Array, seen: Slice) -> Array:
    """The same where the others are pruned too: what the answers of `now` (which lose `lost`) win back when this layer
    alone gets all its weights, for each unit of its `loss` there. `before` is its effect in the dense model."""
    if loss <= 0:
        return before
    won = (lost - seen.lost(spot.put(now, spot.weights))) / loss
    return np.maximum(won, FLOOR * before)
