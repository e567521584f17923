"""The 0-1 search on whole models: what it asks for is held, and equal shares never beat it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.prune.benches import bench_of, kept, lost, weights
from compress.prune.test_units import residual_net
from compress_nets import conv_net, mlp
from tidemill.compress.method import Outcome
from tidemill.compress.prune import laplace, zero_one
from tidemill.compress.prune.slices import Slice
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with bench_of(mlp(), (24,), tmp_path) as made:
        yield made


def run(bench: Workbench, **options: Any) -> Outcome:
    (outcome,) = zero_one.METHOD.run(bench, zero_one.METHOD.settle(options))  # type: ignore[misc]
    return outcome


def test_half_the_weights_lose_no_more_than_equal_shares_do(bench: Workbench) -> None:
    outcome = run(bench, size=0.5)
    (same,) = laplace.METHOD.run(bench, laplace.METHOD.settle({"sparsity": 0.5}))  # type: ignore[misc]
    assert kept(outcome.graph) <= 0.5 + 1e-3
    assert lost(bench, outcome.graph) <= lost(bench, same.graph)
    assert any("the same share everywhere" in note for note in outcome.notes)
    assert kept(bench.graph) == 1


def test_the_same_seed_gives_the_same_weights(bench: Workbench) -> None:
    first, second = (weights(run(bench, rounds=1, search="sweep").graph) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_each_answer_loses_no_more_than_it_may(bench: Workbench) -> None:
    outcome = run(bench, size=1.0, loss=0.05, rounds=4)
    assert Slice(bench).lost(outcome.graph).max() <= 0.05
    assert kept(outcome.graph) < 0.9
    assert len(Slice(bench).names) == 10


def test_limits_that_cannot_both_be_had_are_said(bench: Workbench) -> None:
    outcome = run(bench, size=0.05, loss=0.001)
    assert any("no feasible step" in note for note in outcome.notes)
    assert any("given up" in note for note in outcome.notes)


def test_patterns_are_chosen_layer_by_layer(bench: Workbench) -> None:
    outcome = run(bench, unit="pattern", group=4, size=0.5)
    assert kept(outcome.graph) <= 0.5 + 1e-9
    for weight in weights(outcome.graph).values():
        counts = (weight.reshape(len(weight), -1, 4) != 0).sum(axis=2)
        assert counts.max() <= 4
        assert f"keeps {counts.max()} of 4" in " ".join(outcome.notes)


def test_blocks_go_as_a_whole(bench: Workbench) -> None:
    outcome = run(bench, unit="blocks", rows=4, columns=4, size=0.5)
    assert kept(outcome.graph) <= 0.5
    second = weights(outcome.graph)["second"]
    tiles = (second != 0).reshape(12, 4, 12, 4).transpose(0, 2, 1, 3).reshape(144, 16)
    assert set(np.unique(tiles.mean(axis=1))) <= {0.0, 1.0}
    assert 0 < tiles.all(axis=1).mean() < 1


def test_too_many_blocks_are_refused(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.compress.prune.tiles.BLOCKS_MAX", 10)
    with pytest.raises(InvalidRecipe, match="larger ones"):
        run(bench, unit="blocks", rows=4, columns=4)


@pytest.mark.parametrize("unit", ["weights", "blocks"])
def test_the_classic_form_stops_and_says_why(bench: Workbench, unit: str) -> None:
    outcome = run(bench, form="classic", unit=unit, rows=4, columns=4, size=0.6)
    assert kept(outcome.graph) <= 0.6 + 1e-3
    assert any("the size is met" in note for note in outcome.notes)
    outcome = run(bench, form="classic", unit=unit, rows=4, columns=4, size=0.1, loss=0.02)
    assert kept(outcome.graph) > 0.1
    assert any("no step is left" in note for note in outcome.notes)


@pytest.mark.slow
def test_a_model_of_convolutions_in_groups_goes_through(tmp_path: Path) -> None:
    with bench_of(conv_net(), (3, 12, 12), tmp_path, rows=40) as bench:
        for unit in ("weights", "blocks"):
            assert kept(run(bench, unit=unit, rows=4, columns=3, rounds=2, search="sweep").graph) <= 0.5 + 1e-3


def count(bench: Workbench, outcome: Outcome) -> float:
    """The share of weights that the tensors still hold."""
    return sum(layer.size for layer in outcome.graph.layers()) / sum(layer.size for layer in bench.graph.layers())


def test_units_really_leave_the_tensors(tmp_path: Path) -> None:
    with bench_of(residual_net(), (3, 12, 12), tmp_path, rows=40) as bench:
        outcome = run(bench, unit="channels", size=0.6)
        assert count(bench, outcome) <= 0.6
        assert outcome.graph.size_bytes < bench.graph.size_bytes
        assert np.isfinite(lost(bench, outcome.graph))
        assert any("channels" in note for note in outcome.notes)


def test_time_is_measured_and_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is made to take as long as it has weights."""
    monkeypatch.setattr(
        "tidemill.compress.prune.unit_space._timed",
        lambda seen, graphs: [float(sum(layer.size for layer in graph.layers())) for graph in graphs],
    )
    with bench_of(residual_net(), (3, 12, 12), tmp_path, rows=40) as bench:
        outcome = run(bench, unit="channels", size=1.0, time=0.7, rounds=5)
        assert count(bench, outcome) <= 0.72
        assert any("of the time" in note for note in outcome.notes)


def test_time_is_refused_where_no_shape_changes(bench: Workbench) -> None:
    with pytest.raises(InvalidRecipe, match="time"):
        run(bench, time=0.5)


def test_a_model_without_such_units_is_refused(bench: Workbench) -> None:
    with pytest.raises(InvalidRecipe, match="heads"):
        run(bench, unit="heads")
