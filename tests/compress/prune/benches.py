"""A workbench on a small model whose layers matter differently, for methods that look at the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from compress_nets import Data, Rows
from tidemill.compress.graph import Graph
from tidemill.compress.pipeline import Settings
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array


@contextmanager
def bench_of(model: Any, shape: tuple[int, ...], work: Path, rows: int = 160) -> Iterator[Workbench]:
    """Its inputs depend on one another."""
    chance = np.random.default_rng(0)
    size = int(np.prod(shape))
    mix = chance.normal(size=(size, size)) * np.linspace(1, 0.05, size)[:, None]
    values = (chance.normal(size=(rows + 40, size)) @ mix / np.sqrt(size)).astype(np.float32).reshape(-1, *shape)
    graph = Graph.from_model(model)
    data = Data(Rows({"x": values[:rows]}), Rows({"x": values[rows:]}))
    with ThreadPoolExecutor(1) as pool:
        yield Workbench(graph, graph, data, Settings(work=work, executor=pool))


def kept(graph: Graph) -> float:
    """The share of weights that are not zero."""
    weights = [graph.weight(layer) for layer in graph.layers()]
    return sum(int((each != 0).sum()) for each in weights) / sum(each.size for each in weights)


def lost(bench: Workbench, graph: Graph) -> float:
    """Of the answers on the held-out rows."""
    feeds = dict(bench.data.held.feeds)  # type: ignore[attr-defined]
    before, after = (each.session().run(None, feeds)[0] for each in (bench.graph, graph))
    return float(((before - after) ** 2).sum() / ((before - before.mean(axis=0)) ** 2).sum())


def weights(graph: Graph) -> dict[str, Array]:
    return {layer.name: graph.weight(layer) for layer in graph.layers()}
