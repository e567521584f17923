"""The 0-1 choices of a level for every layer: a share of zeros, or N of every M; in the command line's process.

Within a layer the second-order search finds which weights go; between layers the programme decides. The same level
everywhere is one of its feasible points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tidemill.compress.graph import Graph
from tidemill.compress.method import Outcome
from tidemill.compress.prune import chosen
from tidemill.compress.prune.obs import Pattern
from tidemill.compress.prune.point import Spot, distinct, effect, effect_within, layers_of, spots
from tidemill.compress.prune.slices import Slice
from tidemill.compress.prune.space import Local
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array

PROBES = (0.25, 0.5, 0.7, 0.85, 0.95)
"""Shares at which a layer's loss is found; between them its logarithm is taken to be straight."""
GRID = 0.05
NEAR = 0.2
"""How far a layer's share moves in one round after the first."""


class Levels:
    """A `Space`. `shares` are the zeros of each level, rising from 0; with `group` M level i keeps M − i of M."""

    def __init__(self, bench: Workbench, seen: Slice, size: float, damping: float, group: int = 0) -> None:
        self._bench, self._seen, self._damping, self._group = bench, seen, damping, group
        if group:
            self._shares = np.arange(group) / group
        else:
            grid = np.arange(0, 1 - GRID / 2, GRID)
            self._shares = np.unique(np.round([*grid, 1 - size], 6))
        self._same = int(np.argmin(np.where(self._shares >= 1 - size - 1e-9, self._shares, np.inf)))
        self._probe = int(np.argmin(np.abs(self._shares - np.clip(1 - size, 0.25, 0.75))))
        self._layers = first = distinct(layers_of(bench))
        self._names = [layer.name for layer in first]
        levels = len(self._shares)
        self.sets = np.repeat(np.arange(len(first)), levels)
        self.total = float(sum(layer.size for layer in first))
        self._kept = np.concatenate([layer.size * (1 - self._shares) for layer in first]) if first else np.zeros(0)
        self._dense_effects: dict[str, Array] = {}
        self.effects: dict[str, Array] = {}
        self.losses: dict[str, Array] = {}
        """Of each layer at each level, where it was looked at last."""

    @property
    def shares(self) -> Array:
        return self._shares

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def dense(self) -> Array:
        return self.taking(dict.fromkeys(self._names, 0))

    def uniform(self) -> Array | None:
        return self.taking(dict.fromkeys(self._names, self._same))

    def taking(self, levels: dict[str, int]) -> Array:
        taken = np.zeros((len(self._names), len(self._shares)), np.bool_)
        for at, name in enumerate(self._names):
            taken[at, levels[name]] = True
        return taken.ravel()

    def levels(self, taken: Array) -> dict[str, int]:
        rows = taken.reshape(len(self._names), -1)
        return {name: int(np.flatnonzero(row)[0]) for name, row in zip(self._names, rows, strict=True)}

    def kept(self, taken: Array) -> float:
        return float(self._kept @ taken)

    @property
    def sizes(self) -> Array:
        """Weights kept, of every variable."""
        return self._kept

    def look(self, taken: Array, now: Graph, also: Callable[[Spot], None] | None = None) -> Local:
        """`also` is shown each layer."""
        lost = self._seen.lost(now)
        at = self.levels(taken)
        for spot in spots(self._bench, now, self._damping):
            name = spot.layer.name
            if also is not None:
                also(spot)
            losses = self._losses(spot)
            if now is self._bench.graph:
                self._dense_effects[name] = effect(spot, self._pattern(self._probe), self._bench, self._seen)
                self.effects[name] = self._dense_effects[name]
            else:
                before = self._dense_effects.get(name, np.zeros(len(self._seen.names)))
                self.effects[name] = effect_within(spot, now, lost, losses[at[name]], before, self._seen)
            self.losses[name] = losses
        nothing = np.zeros((len(self._seen.names), len(self._shares)))
        rises = [
            self.effects[name][:, None] * self.losses[name][None] if name in self.losses else nothing
            for name in self._names
        ]
        return Local(taken, lost, np.concatenate(rises, axis=1), self._kept, 0.0)

    def near(self, taken: Array) -> Array:
        """The first step, from the dense model, may go anywhere. A layer that could not be looked at stays whole."""
        rows = []
        at = self.levels(taken)
        for name in self._names:
            far = np.abs(self._shares - self._shares[at[name]]) > NEAR + 1e-9
            free = np.ones(len(self._shares), np.bool_) if not any(at.values()) or self._group else ~far
            rows.append(free if name in self.losses else self._shares == 0)
        return np.concatenate(rows)

    def mend(self, taken: Array, room: float) -> Array:
        return taken

    def seconds(self, graph: Graph) -> float:
        return 1.0

    def make(self, taken: Array, search: str, bench: Workbench | None = None) -> Outcome:
        plans = {name: self._plan(level) for name, level in self.levels(taken).items()}
        options = {"plans": plans, "search": search, "damping": self._damping}
        return (bench or self._bench).layerwise(chosen.SOLVER, lambda layer: layer.op != "Gather", options)

    def words(self, taken: Array) -> list[str]:
        if self._group:
            group = self._group
            return [f"{name} keeps {group - level} of {group}" for name, level in self.levels(taken).items()]
        return [f"{name} loses {self._shares[level]:.1%} of its weights" for name, level in self.levels(taken).items()]

    def _plan(self, level: int) -> dict[str, Any]:
        if self._group:
            return {"kept": self._group - level, "group": self._group}
        return {"share": float(self._shares[level])}

    def _pattern(self, level: int) -> Pattern:
        return chosen.read(self._plan(level))

    def _losses(self, spot: Spot) -> Array:
        if self._group:
            found = [spot.loss(spot.pruned(self._pattern(level))) for level in range(1, self._group)]
            return np.asarray(np.maximum.accumulate([0.0, *found]))
        found = [spot.loss(spot.pruned(Pattern(share))) for share in PROBES]
        return between(self._shares, PROBES, found)


def between(shares: Array, probes: Sequence[float], losses: Sequence[float]) -> Array:
    """The losses at `shares`, rising from 0: by their logarithms between two probes, as the square of the share below
    the first, as straight on beyond the last."""
    rising = np.maximum.accumulate(np.maximum(losses, 1e-300))
    logs = np.log(rising)
    inside = np.exp(np.interp(shares, probes, logs))
    slope = (logs[-1] - logs[-2]) / (probes[-1] - probes[-2])
    beyond = np.exp(logs[-1] + slope * (shares - probes[-1]))
    below = rising[0] * (shares / probes[0]) ** 2
    return np.asarray(np.where(shares < probes[0], below, np.where(shares > probes[-1], beyond, inside)))
