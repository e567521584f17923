"""Drops whole units (FFN columns, heads, coupled channels) from a model; runs in the command line's process.

Three passes: which units go is decided from the moments of the model as it is; then the layer-wise engine fits every
consumer to what is left, each seeing its already thinner predecessors; then the tensors shrink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.compress import correct
from tidemill.compress.graph import Graph
from tidemill.compress.groups import ChannelGroup
from tidemill.compress.hessian import hessian
from tidemill.compress.layers import Layer
from tidemill.compress.method import Outcome
from tidemill.compress.moments import Captured
from tidemill.compress.prune import structured, unit_groups
from tidemill.compress.prune.allocation import Curve, allocate
from tidemill.compress.prune.sense import Sense
from tidemill.compress.prune.structured import Consumer, Order
from tidemill.compress.prune.surgeon import SOLVER
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array


def run(bench: Workbench, options: Mapping[str, Any]) -> Outcome:
    """`sparsity` of the units of each group, or of all groups' weights where `allocation` is curves. A group is taken
    when the step is for all its consumers. Raises `InvalidRecipe` where there is none."""
    kind, share, damping = str(options["units"]), float(options["sparsity"]), float(options["damping"])
    groups = unit_groups.find(bench.graph, kind, {layer.name for layer in bench.layers()}, "units")
    sense = Sense(bench.graph, bench.data.fit) if options["allocation"] == "curves" else None
    orders, curves, notes = _orders(bench, groups, share, damping, sense)
    shares = allocate(curves, share) if sense is not None else dict.fromkeys(orders, share)
    keeps = {name: orders[name].keep(_left(groups[name].size, shares[name])) for name in orders}
    columns = {
        reader.layer.name: {"columns": np.sort(reader.places[keep], axis=None).tolist()}
        for name, keep in keeps.items()
        for reader in groups[name].consumers
    }
    solved = bench.layerwise(SOLVER, lambda layer: layer.name in columns, {"damping": damping, "units": columns})
    graph, results, whole = unit_groups.shrink(solved, groups, keeps)
    notes += [whole.get(name, f"{name} keeps {len(keep)} of {groups[name].size} units") for name, keep in keeps.items()]
    return Outcome(graph, results, notes=(*solved.notes, *notes), left=solved.left)


def _left(size: int, share: float) -> int:
    return max(1, size - round(size * share))


def _orders(
    bench: Workbench, groups: Mapping[str, ChannelGroup], share: float, damping: float, sense: Sense | None
) -> tuple[dict[str, Order], dict[str, Curve], list[str]]:
    """Of every group, as soon as the moments of its consumers have been taken, so that no more are held than needed;
    curves where `sense` is given; and why a group is left."""
    whose = {layer.name: name for name, group in groups.items() for layer in unit_groups.readers(group)}
    layers = [layer for layer in bench.layers() if layer.name in whose]
    waiting = {name: len(unit_groups.readers(group)) for name, group in groups.items()}
    found: dict[str, list[_Reader]] = {name: [] for name in groups}
    refused: dict[str, str] = {}
    orders: dict[str, Order] = {}
    curves: dict[str, Curve] = {}
    for stage, moments in bench.stages(layers):
        for layer in stage.layers:
            name = whose[layer.name]
            try:
                found[name].append(_reader(bench.graph, groups[name], layer, moments[layer.name], damping))
            except RefusedLayer as error:
                refused[name] = error.message
            waiting[name] -= 1
            if waiting[name] or name in refused:
                continue
            readers = found.pop(name)
            orders[name] = structured.order([each.consumer for each in readers])
            if sense is not None:
                curves[name] = _curve(bench.graph, groups[name], readers, orders[name], share, sense)
    return orders, curves, [f"{name} keeps its units: {reason}" for name, reason in refused.items()]


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """`mean` is that of the inputs."""

    layer: Layer
    consumer: Consumer
    mean: Array


def _reader(graph: Graph, group: ChannelGroup, layer: Layer, captured: Sequence[Captured], damping: float) -> _Reader:
    if len(captured) != 1:
        raise RefusedLayer(f"{layer.name} is convolved in groups, and reads its units apart")
    centred = layer.bias is not None
    of = hessian(captured[0].fit, damping, centred=centred)
    weight = graph.weight(layer).astype(np.float64)
    places = next(reader.places for reader in group.consumers if reader.layer.name == layer.name)
    whole = structured.whole(weight, of.matrix)
    consumer = Consumer(weight, of.matrix, places, 1 / whole if whole > 0 else 1.0)
    return _Reader(layer, consumer, captured[0].fit.mean)


def _curve(
    graph: Graph, group: ChannelGroup, readers: Sequence[_Reader], order: Order, share: float, sense: Sense
) -> Curve:
    """The consumers' losses over the share of units dropped, scaled to what dropping `share` of this group alone does
    to the model's outputs."""
    size = len(order.units)
    left = min(_left(size, share), size - 1)
    keep = order.keep(left)
    changed = graph
    for each in readers:
        columns = np.sort(each.consumer.columns[keep], axis=None)
        thin = np.zeros_like(each.consumer.weight)
        thin[:, columns] = structured.fit(each.consumer.weight, each.consumer.matrix, columns)
        changed = correct.put(changed, each.layer, [each.consumer.weight], graph.bias(each.layer), [thin], [each.mean])
    here = float(order.losses[size - left - 1])
    scale = sense.moved(changed) / here if here > 0 else 0.0
    shares = (0.0, *((np.arange(size - 1) + 1) / size).tolist())
    return Curve(float(_weights(group)), shares, (0.0, *(order.losses * scale).tolist()))


def _weights(group: ChannelGroup) -> int:
    return sum(member.layer.size for member in (*group.producers, *group.consumers))
