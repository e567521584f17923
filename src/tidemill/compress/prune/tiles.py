"""The 0-1 choices of blocks of weights, kept or dropped, over all layers together; in the command line's process."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from tidemill.compress.graph import Graph
from tidemill.compress.hessian import Hessian
from tidemill.compress.layers import Layer
from tidemill.compress.method import Outcome
from tidemill.compress.prune import chosen
from tidemill.compress.prune.obs import Pattern
from tidemill.compress.prune.point import distinct, effect, effect_within, layers_of, spots
from tidemill.compress.prune.slices import Slice
from tidemill.compress.prune.space import Local
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe
from tidemill.core.tensor import Array

BLOCKS_MAX = 200_000
PROBE = Pattern(0.5)


class Tiles:
    """A `Space`: a variable is a block dropped. Raises `InvalidRecipe` where there are more than `BLOCKS_MAX`."""

    def __init__(self, bench: Workbench, seen: Slice, rows: int, columns: int, damping: float) -> None:
        self._bench, self._seen, self._damping = bench, seen, damping
        self._rows, self._columns = rows, columns
        self._layers = distinct(layers_of(bench))
        self._shapes = {layer.name: self._grid(layer) for layer in self._layers}
        counts = [int(np.prod(self._shapes[layer.name])) for layer in self._layers]
        if sum(counts) > BLOCKS_MAX:
            raise InvalidRecipe(
                f"blocks of {rows} x {columns} make {sum(counts)} variables, and at most {BLOCKS_MAX} are searched;"
                " take larger ones"
            )
        ends = np.cumsum(counts)
        self._parts = {
            layer.name: slice(int(end) - count, int(end))
            for layer, count, end in zip(self._layers, counts, ends, strict=True)
        }
        self.total = float(sum(layer.size for layer in self._layers))
        self.sets = np.full(sum(counts), -1)
        self._sizes = np.concatenate([np.zeros(0), *(self._weights(layer).ravel() for layer in self._layers)])
        self._dense_effects: dict[str, Array] = {}

    def dense(self) -> Array:
        return np.zeros(len(self.sets), np.bool_)

    def uniform(self) -> Array | None:
        return None

    def kept(self, taken: Array) -> float:
        return self.total - float(self._sizes @ taken)

    def look(self, taken: Array, now: Graph) -> Local:
        lost = self._seen.lost(now)
        rises = np.zeros((len(self._seen.names), len(self.sets)))
        for spot in spots(self._bench, now, self._damping):
            name = spot.layer.name
            kept = ~taken[self._parts[name]].reshape(self._shapes[name])
            costs, loss = [], 0.0
            for weight, of, mask in zip(spot.weights, spot.of, kept, strict=True):
                each, gone = block_costs(weight, of, mask, self._rows, self._columns)
                costs.append(each.ravel())
                loss += gone
            if now is self._bench.graph:
                self._dense_effects[name] = effect(spot, PROBE, self._bench, self._seen)
                of_it = self._dense_effects[name]
            else:
                of_it = effect_within(spot, now, lost, loss, self._dense_effects[name], self._seen)
            rises[:, self._parts[name]] = of_it[:, None] * np.concatenate(costs)[None]
        return Local(taken, lost, rises, -self._sizes, self.total)

    def near(self, taken: Array) -> Array:
        """Every block may go, and may come back."""
        return np.ones(len(taken), np.bool_)

    def mend(self, taken: Array, room: float) -> Array:
        return taken

    def seconds(self, graph: Graph) -> float:
        return 1.0

    def make(self, taken: Array, search: str, bench: Workbench | None = None) -> Outcome:
        plans = {
            name: chosen.write_blocks(~taken[part].reshape(self._shapes[name]), self._rows, self._columns)
            for name, part in self._parts.items()
        }
        options = {"plans": plans, "search": search, "damping": self._damping}
        return (bench or self._bench).layerwise(chosen.SOLVER, lambda layer: layer.op != "Gather", options)

    def words(self, taken: Array) -> list[str]:
        return [
            f"{name} loses {int(taken[part].sum())} of {part.stop - part.start} blocks"
            for name, part in self._parts.items()
        ]

    def _grid(self, layer: Layer) -> tuple[int, int, int]:
        return (layer.groups, *chosen.blocks(layer.shape, self._rows, self._columns))

    def _weights(self, layer: Layer) -> Array:
        """How many are in each block."""
        down, across = chosen.blocks(layer.shape, self._rows, self._columns)
        high = np.minimum(self._rows, layer.shape[0] - np.arange(down) * self._rows)
        wide = np.minimum(self._columns, layer.shape[1] - np.arange(across) * self._columns)
        return np.repeat(np.outer(high, wide).astype(np.float64)[None], layer.groups, axis=0)


def block_costs(weight: Array, of: Hessian, kept: Array, rows: int, columns: int) -> tuple[Array, float]:
    """What dropping each kept block costs when the others make up for it, what each dropped one would win back; [down,
    across]; and the loss where things are.

    Of a row of blocks with the columns S left: ½-free OBS costs tr(W_B ([H_SS⁻¹]_BB)⁻¹ W_Bᵀ), and for a block outside S
    tr(G_B (H_BB − H_BS H_SS⁻¹ H_SB)⁻¹ G_Bᵀ), G = (W − Ŵ)H.
    """
    found = np.zeros(kept.shape)
    matrix = of.matrix
    loss = 0.0
    for down, support in enumerate(kept):
        band = weight[down * rows : (down + 1) * rows]
        inside = np.flatnonzero(chosen.widen(support[None], (1, weight.shape[1]), 1, columns)[0])
        now = np.zeros_like(band)
        inverse = np.zeros((0, 0))
        if inside.size:
            inverse = _inverse(matrix[np.ix_(inside, inside)])
            now[:, inside] = (band @ matrix)[:, inside] @ inverse
        pull = (band - now) @ matrix
        loss += max(float(np.einsum("ij,ij->", pull, band - now)), 0.0)
        places = np.full(weight.shape[1], -1)
        places[inside] = np.arange(inside.size)
        across = inverse @ matrix[inside]
        for at, keeps in enumerate(support):
            block = np.arange(at * columns, min((at + 1) * columns, weight.shape[1]))
            if keeps:
                own = inverse[np.ix_(places[block], places[block])]
                pulled = now[:, block]
            else:
                own = matrix[np.ix_(block, block)] - matrix[np.ix_(block, inside)] @ across[:, block]
                pulled = pull[:, block]
            found[down, at] = max(float(np.einsum("ij,ji->", pulled, np.linalg.solve(own, pulled.T))), 0.0)
    return found, loss


def _inverse(matrix: Array) -> Array:
    factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, np.eye(len(matrix)), check_finite=False))
