"""The 0-1 choices of whole units (channels, heads, FFN columns) that leave the tensors; in the command line's process.

A unit's cost is what its consumers lose when it falls in the second-order order, the others making up for it. How many
weights it takes along depends on what else is gone, which is why sizes are linear too and mended afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tidemill.compress.graph import Graph
from tidemill.compress.method import Outcome
from tidemill.compress.prune import structured, unit_groups
from tidemill.compress.prune.point import FLOOR, Spot, distinct, layers_of, spots
from tidemill.compress.prune.programme import FREE
from tidemill.compress.prune.slices import Slice
from tidemill.compress.prune.space import Local
from tidemill.compress.prune.structured import Consumer, Order
from tidemill.compress.prune.surgeon import SOLVER
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array

TIMINGS = 7
"""Models are timed in alternation, so often; the least of each counts."""


class Units:
    """A `Space`: a variable is a unit dropped. `kind` is one of `groups.Kind`, or "units" for all. With `timed` the
    seconds that units save are measured. Raises `InvalidRecipe` where there are no such units."""

    def __init__(self, bench: Workbench, seen: Slice, kind: str, damping: float, timed: bool = False) -> None:
        self._bench, self._seen, self._damping, self._timed = bench, seen, damping, timed
        self._layers = distinct(layers_of(bench))
        self._groups = unit_groups.find(
            bench.graph, kind, {layer.name for layer in self._layers}, "unit", ungrouped=True
        )
        ends = np.cumsum([group.size for group in self._groups.values()])
        self._parts = {
            name: slice(int(end) - group.size, int(end))
            for (name, group), end in zip(self._groups.items(), ends, strict=True)
        }
        self.total = float(sum(layer.size for layer in self._layers))
        self.sets = np.full(int(ends[-1]), FREE)
        self._effects: dict[str, Array] = {}
        self._costs = np.zeros((len(seen.names), len(self.sets)))
        self._stays = np.zeros(len(self.sets), np.bool_)
        self._unshrunk = bench.graph
        self._saves: dict[str, float] = {}

    def dense(self) -> Array:
        return np.zeros(len(self.sets), np.bool_)

    def uniform(self) -> Array | None:
        return None

    def kept(self, taken: Array) -> float:
        rows, columns = self._left(taken)
        return float(sum(layer.size * rows[layer.name] * columns[layer.name] for layer in self._layers))

    def look(self, taken: Array, now: Graph) -> Local:
        lost = self._seen.lost(now)
        whole = self._unshrunk if taken.any() else self._bench.graph
        whose = {member.layer.name: name for name, group in self._groups.items() for member in group.consumers}
        waiting = {name: len(group.consumers) for name, group in self._groups.items()}
        gathered: dict[str, list[Spot]] = {name: [] for name in self._groups}
        self._stays[:] = True  # until its costs are known
        for spot in spots(self._bench, whole, self._damping):
            name = whose.get(spot.layer.name, "")
            if not name:
                continue
            gathered[name].append(spot)
            waiting[name] -= 1
            if not waiting[name]:
                self._take_in(name, gathered.pop(name), taken[self._parts[name]], whole, lost)
        sizes = -self._savings(taken)
        if self._timed and not self._saves:
            self._saves = self._measured()
        times = None
        if self._timed:
            times = np.concatenate([np.full(group.size, -self._saves[name]) for name, group in self._groups.items()])
        return Local(taken, lost, self._costs.copy(), sizes, self.kept(taken) - float(sizes @ taken), times)

    def near(self, taken: Array) -> Array:
        """The last unit of a group stays, and those of groups that could not be looked at."""
        return ~self._stays

    def mend(self, taken: Array, room: float) -> Array:
        """With the cheapest further units dropped, until no more than `room` weights are really kept."""
        now = taken.copy()
        costs = self._costs.mean(axis=0)
        for _ in range(len(now)):
            if self.kept(now) <= room:
                break
            saves = self._savings(now)
            price = np.where(now | self._stays | (saves <= 0), np.inf, costs / np.maximum(saves, 1e-300))
            best = int(np.argmin(price))
            if not np.isfinite(price[best]):
                break
            now[best] = True
        return now

    def make(self, taken: Array, search: str, bench: Workbench | None = None) -> Outcome:
        keeps = {name: np.flatnonzero(~taken[part]) for name, part in self._parts.items()}
        columns = {
            member.layer.name: {"columns": np.sort(member.places[keeps[name]], axis=None).tolist()}
            for name, group in self._groups.items()
            for member in group.consumers
        }
        options = {"damping": self._damping, "units": columns}
        solved = (bench or self._bench).layerwise(SOLVER, lambda layer: layer.name in columns, options)
        self._unshrunk = solved.graph
        graph, results, whole = unit_groups.shrink(solved, self._groups, keeps)
        return Outcome(graph, results, notes=(*solved.notes, *whole.values()), left=solved.left)

    def words(self, taken: Array) -> list[str]:
        return [
            f"{name} keeps {int((~taken[part]).sum())} of {part.stop - part.start} {self._groups[name].kind}"
            for name, part in self._parts.items()
        ]

    def _take_in(self, name: str, readers: Sequence[Spot], gone: Array, now: Graph, lost: Array) -> None:
        """What each unit of one group costs, in the units of the answers' loss."""
        group = self._groups[name]
        places = {member.layer.name: member.places for member in group.consumers}
        consumers = []
        for spot in readers:
            weight, matrix = spot.weights[0], spot.of[0].matrix
            whole = structured.whole(weight, matrix)
            consumers.append(Consumer(weight, matrix, places[spot.layer.name], 1 / whole if whole > 0 else 1.0))
        order = structured.order(consumers)
        if now is self._bench.graph:
            keep = order.keep(max(1, group.size // 2))
            loss, pruned = _thin(consumers, keep)
            changed = now
            for spot, weight in zip(readers, pruned, strict=True):
                changed = spot.put(changed, [weight])
            effect = self._seen.lost(changed) / loss if loss > 0 else np.zeros(len(lost))
        else:
            loss, _ = _thin(consumers, np.flatnonzero(~gone))
            restored = now
            for spot in readers:
                restored = spot.put(restored, spot.weights)
            before = self._effects[name]
            effect = np.maximum((lost - self._seen.lost(restored)) / loss, FLOOR * before) if loss > 0 else before
        self._effects.setdefault(name, effect)  # that in the dense model
        self._costs[:, self._parts[name]], self._stays[self._parts[name]] = _costs(order, effect)

    def _left(self, taken: Array) -> tuple[dict[str, float], dict[str, float]]:
        """Of each layer, the shares of its rows and of its columns."""
        rows = {layer.name: 1.0 for layer in self._layers}
        columns = dict(rows)
        for name, group in self._groups.items():
            share = 1 - float(taken[self._parts[name]].mean())
            for member in group.producers:
                if member.layer.name in rows:
                    covered = member.places.size / (member.layer.groups * member.layer.shape[0])
                    rows[member.layer.name] -= covered * (1 - share)
            for member in group.consumers:
                columns[member.layer.name] -= 1 - share
        return rows, columns

    def _savings(self, taken: Array) -> Array:
        """Weights that one more unit takes along."""
        rows, columns = self._left(taken)
        found = np.zeros(len(self.sets))
        for name, group in self._groups.items():
            each = 0.0
            for member in group.producers:
                if member.layer.name in rows:
                    share = member.places.size / (member.layer.groups * member.layer.shape[0]) / group.size
                    each += member.layer.size * share * columns[member.layer.name]
            for member in group.consumers:
                each += member.layer.size / group.size * rows[member.layer.name]
            found[self._parts[name]] = each
        return found

    def seconds(self, graph: Graph) -> float:
        """What `graph` takes as a share of what the dense model does, timed in alternation."""
        ours, dense = _timed(self._seen, [graph, self._bench.graph])
        return ours / dense

    def _measured(self) -> dict[str, float]:
        """The share of the dense model's time that one unit of each group saves: by taking half of it away."""
        found = {}
        for name, group in self._groups.items():
            half = self._bench.graph.copy()
            half.remove(unit_groups.again(half, name), np.arange(max(1, group.size // 2)))
            thin, dense = _timed(self._seen, [half, self._bench.graph])
            found[name] = max(0.0, 1 - thin / dense) / max(1, group.size - max(1, group.size // 2))
        return found


def _thin(consumers: Sequence[Consumer], keep: Array) -> tuple[float, list[Array]]:
    """The scaled loss of keeping these units alone, and the weights [out, in] of each consumer."""
    loss, found = 0.0, []
    for each in consumers:
        columns = np.sort(each.columns[keep], axis=None)
        thin = np.zeros_like(each.weight)
        if columns.size:
            thin[:, columns] = structured.fit(each.weight, each.matrix, columns)
        loss += each.scale * max(structured.whole(each.weight - thin, each.matrix), 0.0)
        found.append(thin)
    return loss, found


def _costs(order: Order, effect: Array) -> tuple[Array, Array]:
    """[answers, units], and which units must stay."""
    falls = len(order.losses)
    costs = np.zeros(len(order.units))
    # Rising, so that those that fall first are the cheapest.
    costs[order.units[:falls]] = np.maximum.accumulate(np.diff(order.losses, prepend=0.0))
    stays = np.zeros(len(order.units), np.bool_)
    stays[order.units[falls:]] = True
    return effect[:, None] * costs[None], stays


def _timed(seen: Slice, graphs: Sequence[Graph]) -> list[float]:
    calls = [seen.call(graph) for graph in graphs]
    best = [float("inf")] * len(calls)
    for _ in range(TIMINGS):
        for at, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[at] = min(best[at], time.perf_counter() - started)
    return best
