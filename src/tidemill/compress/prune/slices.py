"""What pruning does to the model's answers, on a slice of the rows that are learned from.

Runs in the command line's process. The held-out rows are no part of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.compress import unfold
from tidemill.compress.capture import DataLike, RowsLike
from tidemill.compress.graph import Graph
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import BadData, InvalidRecipe
from tidemill.core.tensor import Array

ROWS_MIN, ROWS_MAX = 16, 256
WORK = 2e8
"""Weights times rows, about, that one look at the answers is worth, between so few rows and so many."""
BROKEN = 1e6
"""What an answer that is no number has lost."""
APART = 4
"""At most one batch of so many is kept out of what is fitted."""
ANSWERS_MAX = 16
"""An output of so many numbers a row, logits say, counts as so many outputs."""


@dataclass(frozen=True, slots=True)
class Without:
    """`rows` but for the batches of these numbers."""

    rows: RowsLike
    numbers: frozenset[int]

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return (feeds for number, feeds in enumerate(self.rows) if number not in self.numbers)


@dataclass(frozen=True, slots=True)
class Rest:
    fit: RowsLike
    held: RowsLike


class Slice:
    """Some batches of `bench.data.fit` from all over, `rows_max` rows at most (0: as many as suit the model's size; a
    batch at least), and what the model makes of them. `names` are the outputs, each number of a short one for itself.
    `rest` are the data without them: what is fitted to rows says little about itself on the same rows. Where there are
    too few batches to do without some, it is all of them. Raises `BadData`, `InvalidRecipe` where no output is of
    floats."""

    def __init__(self, bench: Workbench, rows_max: int = 0) -> None:
        self._threads = bench.settings.threads
        if not rows_max:
            weights = sum(layer.size for layer in bench.layers() if layer.op != "Gather")
            rows_max = int(np.clip(WORK / max(weights, 1), ROWS_MIN, ROWS_MAX))
        sizes = [max((len(array) for array in feeds.values() if array.ndim), default=1) for feeds in bench.data.fit]
        places = _spread(sizes, rows_max)
        # Rows are read again, so that no more of them are held than are taken.
        self._feeds = [dict(feeds) for number, feeds in enumerate(bench.data.fit) if number in places]
        apart = len(places) * APART <= len(sizes)
        self.rest: DataLike = Rest(Without(bench.data.fit, places), bench.data.held) if apart else bench.data
        self._masks = [unfold.mask_of(feeds) for feeds in self._feeds]
        session = bench.graph.session(threads=self._threads)
        self._kinds = [each.name for each in session.get_outputs()]
        self._base = self._answers(bench.graph)
        self._names = [name for name in self._kinds if _is_float(self._base[name])]
        if not self._names:
            raise InvalidRecipe(
                f"the model answers {', '.join(self._kinds)}, none of them of floats: what pruning does to the answers"
                " cannot be told; take the method laplace with equal shares"
            )
        self._spread = {name: _spread_of(self._base[name]) for name in self._names}
        self.names = tuple(
            name if len(self._spread[name]) == 1 else f"{name}[{at}]"
            for name in self._names
            for at in range(len(self._spread[name]))
        )

    def call(self, graph: Graph) -> Callable[[], object]:
        """Runs `graph` on all of it: to be timed."""
        session = graph.session(threads=self._threads)
        wanted = {each.name for each in session.get_inputs()}
        given = [{name: array for name, array in feeds.items() if name in wanted} for feeds in self._feeds]
        return lambda: [session.run(None, feeds) for feeds in given]

    def lost(self, graph: Graph) -> Array:
        """For each of `names` E(o − ô)² over the variance of o, float64."""
        now = self._answers(graph)
        found = []
        for name in self._names:
            error = np.sum([_power(a - b) for a, b in zip(self._base[name], now[name], strict=True)], axis=0)
            found.append(_folded(error, len(self._spread[name])) / self._spread[name])
        lost = np.concatenate(found)
        return np.where(np.isfinite(lost), lost, BROKEN)

    def _answers(self, graph: Graph) -> dict[str, list[Array]]:
        """By output, batch for batch [values, last axis], padding left out."""
        session = graph.session(threads=self._threads)
        wanted = {each.name for each in session.get_inputs()}
        found: dict[str, list[Array]] = {name: [] for name in self._kinds}
        for feeds, mask in zip(self._feeds, self._masks, strict=True):
            given = {name: array for name, array in feeds.items() if name in wanted}
            for name, out in zip(self._kinds, session.run(self._kinds, given), strict=True):
                array = np.asarray(out)
                if mask is not None and array.ndim > 2 and array.shape[:2] == mask.shape:
                    array = array[mask]
                found[name].append(array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1))
        return found


def _spread(sizes: Sequence[int], rows_max: int) -> frozenset[int]:
    """Which of the batches, by the rows of each."""
    if not sizes:
        raise BadData("there are no rows to calibrate with; give a file with at least a few dozen")
    count = min(len(sizes), max(1, rows_max // max(1, sizes[0])))
    return frozenset(np.linspace(0, len(sizes) - 1, count + 2)[1:-1].round().astype(int).tolist())


def _is_float(arrays: list[Array]) -> bool:
    return arrays[0].dtype.kind == "f"


def _power(array: Array) -> Array:
    return np.asarray((array.astype(np.float64) ** 2).sum(axis=0))


def _folded(power: Array, to: int) -> Array:
    return power if to == len(power) else np.atleast_1d(power.sum())


def _spread_of(arrays: list[Array]) -> Array:
    """The variance of each number of a short output, of a long one altogether; 1 where there is none."""
    mean = sum(array.sum(axis=0, dtype=np.float64) for array in arrays) / sum(len(array) for array in arrays)
    power = np.asarray(sum(_power(array - mean) for array in arrays))
    power = power if len(power) <= ANSWERS_MAX else np.atleast_1d(power.sum())
    return np.where(power > 0, power, 1.0)
