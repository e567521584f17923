from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from compress_nets import Rounding, decoded, mlp
from tidemill.compress.data import Data, Rows
from tidemill.compress.evaluate import Judge
from tidemill.compress.graph import Graph
from tidemill.compress.pipeline import Settings
from tidemill.compress.rollback import meet
from tidemill.compress.workbench import Workbench, outcome


def rows(count: int, seed: int) -> Rows:
    values = np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)
    return Rows([{"x": row} for row in values], 8)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    graph = Graph.from_model(mlp())
    data = Data(rows(200, 1), rows(50, 2), "made up", "arrays")
    with ThreadPoolExecutor(1) as pool:
        settings = Settings(work=tmp_path, executor=pool, emitter=decoded)
        yield Workbench(graph, graph, data, settings, Judge(graph, data, "cosine"))


def test_the_original_keeps_everything(bench: Workbench) -> None:
    assert bench.kept(bench.original) == pytest.approx(1.0)
    assert bench.quality(bench.graph).mean == pytest.approx(1.0)


def test_moments_of_layers_are_those_of_the_graph_as_it_is(bench: Workbench) -> None:
    layers = bench.layers()
    found = bench.moments_of(layers[1:])
    assert list(found) == ["second", "third"]
    (second,) = found["second"]
    assert second.fit.count == 200
    assert second.cross is None
    assert [stage.key for stage, _ in bench.stages()] == ["x", "h2", "h4"]


def test_a_step_compresses_the_layers_that_match(bench: Workbench) -> None:
    made = bench.layerwise(Rounding(bits=4), lambda layer: layer.op == "MatMul")
    assert list(made.layers) == ["first", "third"]
    assert 0.9 < bench.kept(made.graph) < 1
    bench.match = lambda layer: layer.name == "second"
    assert list(bench.layerwise(Rounding()).layers) == ["second"]


def test_what_was_refused_and_rolled_back_is_told(bench: Workbench) -> None:
    solved = bench.solve(Rounding(bits=2, refuses="third"), {})
    whole = bench.kept(solved.graph)
    kept = meet(solved, bench.kept, whole + 1e-3, emitter=decoded)
    told = outcome(solved, kept.graph, kept.reverted)
    assert told.left == (("third", "MatMul", "it was told to"),)
    assert [f"{name} got its own weights back, to keep the metric" in told.notes for name in kept.reverted] == [True]
    assert set(told.layers) | set(kept.reverted) == {"first", "second"}
