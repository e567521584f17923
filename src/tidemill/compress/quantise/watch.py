"""What tensors of a float graph look like over calibration data, as streaming sums; runs in the command line's process.

Two passes: the first finds ranges, the second counts histograms within them. No tensor outlives its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tidemill.compress.graph import Graph
from tidemill.core.errors import BadData
from tidemill.core.tensor import Array
from tidemill.engine.onnx import ORT_FAILURES, first_line

BINS: Final = 2048
Batches = Iterable[Mapping[str, Array]]
Tick = Callable[[], None]


@dataclass(slots=True, eq=False)
class Seen:
    """One tensor: per channel `low`, `high`, `mean` and `square` (mean of squares), float64 [channels]; and how all
    values are spread, `histogram` over `edges`. A tensor without channels has one."""

    count: int
    low: Array
    high: Array
    mean: Array
    square: Array
    histogram: Array
    edges: Array


def watch(
    graph: Graph,
    axes: Mapping[str, int | None],
    batches: Batches,
    threads: int,
    tick: Tick | None = None,
    histograms: bool = True,
) -> dict[str, Seen]:
    """Every tensor that `axes` names, with the axis of its channels (None: it has none).

    Raises `BadData` for values that are not finite, and for no batch at all."""
    session = graph.session(list(axes), threads)
    found: dict[str, Seen] = {}
    for values in runs(session, list(axes), batches):
        for name, array in values.items():
            _add(found, name, array, axes[name])
        if tick is not None:
            tick()
    if not found:
        raise BadData("the calibration data has no row; give at least a few that look like what the model will see")
    for seen in found.values():
        low, high = float(seen.low.min()), float(seen.high.max())
        seen.edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
    if not histograms:
        return found
    for values in runs(session, list(axes), batches):
        for name, array in values.items():
            found[name].histogram += _counts(array, found[name].edges)
        if tick is not None:
            tick()
    return found


def _add(found: dict[str, Seen], name: str, array: Array, axis: int | None) -> None:
    others = tuple(at for at in range(array.ndim) if axis is None or at != axis % array.ndim)
    low, high = (np.atleast_1d(extreme(others)).astype(np.float64) for extreme in (array.min, array.max))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise BadData(f"calibration makes values in {name!r} that are not finite: look for NaN among the inputs")
    count = array.size // len(low)
    mean = np.atleast_1d(array.mean(others, dtype=np.float64))
    square = np.atleast_1d(np.square(array, dtype=np.float32).mean(others, dtype=np.float64))
    seen = found.get(name)
    if seen is None:
        nothing = np.zeros(0)
        found[name] = Seen(count, low, high, mean, square, np.zeros(BINS, np.int64), nothing)
        return
    share = count / (seen.count + count)
    seen.mean += share * (mean - seen.mean)
    seen.square += share * (square - seen.square)
    np.minimum(seen.low, low, out=seen.low)
    np.maximum(seen.high, high, out=seen.high)
    seen.count += count


def sample(
    graph: Graph, tensors: Sequence[str], batches: Batches, threads: int, rows: int, seed: int
) -> dict[str, Array]:
    """About `rows` rows [rows, features] of each tensor, as many from each batch."""
    session, chance = graph.session(list(tensors), threads), np.random.default_rng(seed)
    kept: dict[str, list[Array]] = {}
    each = max(1, rows // max(1, sum(1 for _ in batches)))
    for values in runs(session, list(tensors), batches):
        for name, array in values.items():
            table = array.reshape(-1, array.shape[-1])
            kept.setdefault(name, []).append(table[chance.permutation(len(table))[:each]])
    return {name: np.concatenate(parts)[:rows] for name, parts in kept.items()}


def _counts(array: Array, edges: Array) -> Array:
    """As `np.histogram` counts over even edges, in a third of its time."""
    step = np.float32(BINS / (edges[-1] - edges[0]))
    bins = ((array.ravel() - np.float32(edges[0])) * step).astype(np.int32)
    return np.bincount(np.clip(bins, 0, BINS - 1, out=bins), minlength=BINS)


def runs(session: Any, names: Sequence[str], batches: Batches) -> Iterator[dict[str, Array]]:
    """What each batch makes of the tensors `names`, but for empty ones. Raises `BadData`."""
    known = {each.name for each in session.get_inputs()}
    for batch in batches:
        try:
            given = session.run(list(names), {name: array for name, array in batch.items() if name in known})
        except ORT_FAILURES as error:
            raise BadData(f"the model cannot run on the calibration data: {first_line(error)}") from error
        yield {name: array for name, array in zip(names, given, strict=True) if array.size}
