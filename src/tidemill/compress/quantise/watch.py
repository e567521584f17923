"""What tensors of a float graph look like over calibration data, as streaming sums; runs in the command line's process.

One pass goes through the graph a few tensors at a time, so that neither the rows nor the model's width decide on the
memory: what lies between two stretches waits on disk (`walk.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tidemill.compress.graph import Graph
from tidemill.compress.moments import Histogram
from tidemill.compress.unfold import mask_of, shown_rows
from tidemill.compress.walk import Spool, Walk
from tidemill.core.errors import BadData
from tidemill.core.tensor import Array

TOGETHER: Final = 8
"""Tensors that one stretch makes."""
Batches = Iterable[Mapping[str, Array]]


@dataclass(slots=True, eq=False)
class Seen:
    """One tensor over all tokens that were looked at: per channel `low`, `high` and `square` (mean of squares), float64
    [channels], and how all values are spread, `histogram` over `edges`. A tensor without channels has one. `rows` are
    some rows [rows, features] of it, where they were asked for."""

    count: int
    low: Array
    high: Array
    square: Array
    spread: Histogram
    rows: Array

    @property
    def histogram(self) -> Array:
        """The bins between the least and the greatest value that was seen."""
        first, last = self._within()
        return self.spread.counts[first:last]

    @property
    def edges(self) -> Array:
        """As `histogram` has them; the outermost are what was seen."""
        first, last = self._within()
        edges = self.spread.edges[first : last + 1].copy()
        low, high = float(self.low.min()), float(self.high.max())
        edges[0], edges[-1] = low, high if high > low else low + 1e-6
        return edges

    def _within(self) -> tuple[int, int]:
        used = np.flatnonzero(self.spread.counts)
        return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(self.spread.counts))


def watch(
    graph: Graph,
    axes: Mapping[str, int | None],
    batches: Batches,
    work: Path,
    threads: int,
    rows: int = 0,
    seed: int = 0,
    hidden: bool = False,
) -> dict[str, Seen]:
    """Every tensor that `axes` names, with the axis of its channels (None: it has none), and about `rows` rows of each,
    as many from each batch. `work` is a folder for what waits. `hidden` tokens, which the mask leaves out, are looked
    at too: a range that is found in each call is theirs as well.

    Raises `BadData` for values that are not finite, and for no batch at all; `DiskFull`."""
    folder = work / f"spool-{os.getpid()}-watch-{id(axes):x}"
    order = {name: at for at, node in enumerate(graph.nodes) for name in node.output}
    names = sorted(axes, key=lambda name: order.get(name, -1))
    found: dict[str, Seen] = {}
    try:
        spool = Spool(folder)
        masks = _put(spool, graph, batches)
        if not masks:
            raise BadData("the calibration data has no row; give at least a few that look like what the model will see")
        chance, each = np.random.default_rng(seed), -(-rows // len(masks))
        walk = Walk(graph, names, spool, len(masks), threads)
        for start in range(0, len(names), TOGETHER):
            for mask, made in zip(masks, walk.stretches(names[start : start + TOGETHER]), strict=True):
                for name, array in made.items():
                    _add(found, name, _shown(array, None if hidden else mask, axes[name]), axes[name], each, chance)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for seen in found.values():
        seen.rows = seen.rows[:rows]
    return found


def _put(spool: Spool, graph: Graph, batches: Batches) -> list[Array | None]:
    """The batches' masks."""
    wanted = [each.name for each in graph.model.graph.input]
    masks = []
    for number, batch in enumerate(batches):
        spool.put(number, {name: np.asarray(batch[name]) for name in wanted if name in batch})
        masks.append(mask_of(batch))
    return masks


def _shown(array: Array, mask: Array | None, axis: int | None) -> Array:
    """Without tokens that the mask hides, where the features are the last axis."""
    shown = None if mask is None or axis != -1 else shown_rows(array, mask)
    return array if shown is None else array.reshape(-1, array.shape[-1])[shown]


def _add(
    found: dict[str, Seen], name: str, array: Array, axis: int | None, rows: int, chance: np.random.Generator
) -> None:
    if not array.size:
        return
    array = np.asarray(array, np.float32)
    others = tuple(at for at in range(array.ndim) if axis is None or at != axis % array.ndim)
    low, high = (np.atleast_1d(extreme(others)).astype(np.float64) for extreme in (array.min, array.max))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise BadData(f"calibration makes values in {name!r} that are not finite: look for NaN among the inputs")
    count = array.size // len(low)
    square = np.atleast_1d(np.square(array).mean(others, dtype=np.float64))
    table = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    some = table[chance.permutation(len(table))[:rows]]
    seen = found.get(name)
    if seen is None:
        seen = found[name] = Seen(count, low, high, square, Histogram(), some)
    else:
        seen.square += count / (seen.count + count) * (square - seen.square)
        np.minimum(seen.low, low, out=seen.low)
        np.maximum(seen.high, high, out=seen.high)
        seen.count += count
        if rows:
            seen.rows = np.concatenate([seen.rows, some])
    seen.spread.add(array, float(low.min()), float(high.max()))
