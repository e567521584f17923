"""How much a change to a graph moves its outputs, on a few rows that are learned from; runs where graphs do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tidemill.compress.capture import RowsLike
from tidemill.compress.graph import Graph
from tidemill.core.tensor import Array

ROWS_MAX = 32


class Sense:
    """Of `graph` as it is now. Each question runs the changed graph on up to `ROWS_MAX` rows."""

    def __init__(self, graph: Graph, rows: RowsLike) -> None:
        self._feeds = _some(rows)
        self._base = _outputs(graph, self._feeds)

    def moved(self, changed: Graph) -> float:
        """The outputs' squared difference over their variance, on average over the outputs."""
        shares = []
        for before, after in zip(self._base, _outputs(changed, self._feeds), strict=True):
            spread = float(((before - before.mean(axis=0)) ** 2).sum()) or float((before**2).sum()) or 1.0
            shares.append(float(((before - after) ** 2).sum()) / spread)
        return float(np.mean(shares)) if shares else 0.0


def _some(rows: RowsLike) -> list[dict[str, Array]]:
    found: list[dict[str, Array]] = []
    count = 0
    for feeds in rows:
        size = max((len(array) for array in feeds.values() if array.ndim), default=1)
        if count and count + size > ROWS_MAX:
            break
        found.append(dict(feeds))
        count += size
    return found


def _outputs(graph: Graph, feeds: Sequence[Mapping[str, Array]]) -> list[Array]:
    session = graph.session()
    wanted = {each.name for each in session.get_inputs()}
    found: list[Array] = []
    for each in feeds:
        outputs = session.run(None, {name: array for name, array in each.items() if name in wanted})
        found.extend(np.asarray(out) for out in outputs if np.asarray(out).dtype.kind == "f")
    return found
