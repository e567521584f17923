"""Groups of whole units that a step may drop, and their leaving; runs in the command line's process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from tidemill.compress.forms import Dense
from tidemill.compress.graph import Graph
from tidemill.compress.groups import ChannelGroup
from tidemill.compress.layers import Layer
from tidemill.compress.method import Outcome
from tidemill.compress.task import LayerResult
from tidemill.core.errors import InvalidRecipe
from tidemill.core.tensor import Array

EVERY = ("all", "units")
"""What options call units of every kind."""


def readers(group: ChannelGroup) -> list[Layer]:
    return [member.layer for member in group.consumers]


def find(
    graph: Graph, kind: str, ours: Collection[str], option: str, *, ungrouped: bool = False
) -> dict[str, ChannelGroup]:
    """By name, those of a `kind` (or of `EVERY`) of more than one unit whose readers are all among the layers `ours`,
    and with `ungrouped` no convolution in groups. Raises `InvalidRecipe` where there is none, naming the `option`."""
    every = graph.channel_groups()
    found = {
        group.name: group
        for group in every
        if kind in {*EVERY, group.kind} and group.size > 1 and group.consumers
        and all(layer.name in ours and not (ungrouped and layer.groups > 1) for layer in readers(group))
    }  # fmt: skip
    if not found:
        kinds = ", ".join(sorted({group.kind for group in every})) or "no units that can be dropped"
        raise InvalidRecipe(
            f"{option}={kind}: there are no such units whose readers are all in this step; the model has {kinds}"
        )
    return found


def again(graph: Graph, name: str) -> ChannelGroup:
    """The group as it is in a graph that has changed."""
    return next(group for group in graph.channel_groups() if group.name == name)


def shrink(
    solved: Outcome, groups: Mapping[str, ChannelGroup], keeps: Mapping[str, Array]
) -> tuple[Graph, dict[str, LayerResult], dict[str, str]]:
    """Leave only the units `keeps` of each group, whose readers were fitted to them in `solved`: the thinner graph, the
    results with the weights as they ended, and why groups kept all their units."""
    graph = solved.graph.copy()
    whole = {}
    for name, keep in keeps.items():
        unsolved = [layer.name for layer in readers(groups[name]) if layer.name not in solved.layers]
        if unsolved:
            whole[name] = f"{name} keeps its units: {', '.join(unsolved)} could not be fitted to fewer"
        elif len(keep) < groups[name].size:
            graph.remove(again(graph, name), keep)
    layers = {layer.name: layer for layer in graph.layers()}
    results = {
        name: replace(result, form=Dense(graph.weight(layers[name])), bias=graph.bias(layers[name]))
        for name, result in solved.layers.items()
        if name in layers
    }
    return graph, results, whole
