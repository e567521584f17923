"""The method on a whole model: which layers it takes, and how it shares its budget."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import small_nets
from tidemill.compress.graph import Graph
from tidemill.compress.pipeline import Settings
from tidemill.compress.prune.laplace import METHOD
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe
from tidemill.core.tensor import Array


@dataclass(frozen=True)
class Batches:
    rows: Array

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for start in range(0, len(self.rows), 32):
            yield {"x": self.rows[start : start + 32]}


@dataclass(frozen=True)
class Both:
    fit: Batches
    held: Batches


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    path = small_nets.save_net(tmp_path / "models")
    rows = np.load(tmp_path / "fit.npz")["x"]
    graph = Graph.read(path)
    with ThreadPoolExecutor(1) as pool:
        yield Workbench(
            graph, graph, Both(Batches(rows[:150]), Batches(rows[150:])), Settings(work=tmp_path, executor=pool)
        )


def weights(graph: Graph) -> dict[str, Array]:
    return {layer.name: graph.weight(layer) for layer in graph.layers()}


def test_half_of_every_layer_goes_and_the_outputs_stay_near(bench: Workbench) -> None:
    (outcome,) = METHOD.run(bench, METHOD.settle({}))
    for found in weights(outcome.graph).values():
        assert (found == 0).mean() == pytest.approx(0.5)
    rows = {"x": np.concatenate([each["x"] for each in bench.data.held])}
    before, after = (graph.session().run(None, rows)[0] for graph in (bench.graph, outcome.graph))
    cut = bench.graph.copy()
    for layer in cut.layers():
        weight = cut.weight(layer)
        cut.set_dense(layer, np.where(np.abs(weight) >= np.median(np.abs(weight)), weight, 0))
    plain = cut.session().run(None, rows)[0]
    assert ((after - before) ** 2).sum() < 0.7 * ((plain - before) ** 2).sum()
    (again,) = METHOD.run(bench, METHOD.settle({}))
    assert all(np.array_equal(each, other) for each, other in
               zip(weights(outcome.graph).values(), weights(again.graph).values(), strict=True))  # fmt: skip


def test_a_pattern_holds_along_the_inputs(bench: Workbench) -> None:
    (outcome,) = METHOD.run(bench, METHOD.settle({"pattern": "2:4"}))
    for found in weights(outcome.graph).values():
        assert ((found.reshape(len(found), -1, 4) != 0).sum(axis=2) <= 2).all()


def test_curves_share_out_one_budget(bench: Workbench) -> None:
    (outcome,) = METHOD.run(bench, METHOD.settle({"allocation": "curves", "sparsity": 0.6}))
    found = list(weights(outcome.graph).values())
    zeros = [float((each == 0).mean()) for each in found]
    assert sum(int((each == 0).sum()) for each in found) == pytest.approx(0.6 * sum(each.size for each in found), abs=2)
    assert zeros[0] != pytest.approx(zeros[1], abs=0.01)


@pytest.mark.parametrize("options", [{"pattern": "2:4", "units": "ffn"}, {"pattern": "2:4", "allocation": "curves"}])
def test_what_a_pattern_does_not_go_with_is_refused(bench: Workbench, options: dict[str, str]) -> None:
    with pytest.raises(InvalidRecipe, match="pattern"):
        METHOD.run(bench, METHOD.settle(options))
