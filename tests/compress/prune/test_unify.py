"""Several models from one path: each smaller than the last, none beaten by another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.prune.benches import bench_of, kept, lost, weights
from compress_nets import mlp
from tidemill.compress.method import Outcome
from tidemill.compress.prune import laplace, unify
from tidemill.compress.prune.slices import Slice
from tidemill.compress.workbench import Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with bench_of(mlp(), (24,), tmp_path) as made:
        yield made


def run(bench: Workbench, **options: Any) -> list[Outcome]:
    return unify.METHOD.run(bench, unify.METHOD.settle(options))  # type: ignore[misc]


def test_five_models_none_of_which_is_beaten(bench: Workbench) -> None:
    found = run(bench)
    sizes = [kept(each.graph) for each in found]
    losses = [Slice(bench).lost(each.graph).mean() for each in found]
    assert len(found) == 5
    assert len({each.name for each in found}) == 5
    assert sizes == sorted(sizes, reverse=True)
    assert (np.diff(losses) > 0).all()


def test_no_model_loses_more_than_equal_shares_of_its_size(bench: Workbench) -> None:
    for each in run(bench, models=2, first=0.6, step=0.2):
        (same,) = laplace.METHOD.run(bench, laplace.METHOD.settle({"sparsity": 1 - kept(each.graph)}))  # type: ignore[misc]
        assert lost(bench, each.graph) <= lost(bench, same.graph) * 1.02


@pytest.mark.parametrize("path", ["lasso", "ridge"])
def test_the_search_ends_where_the_answers_keep_too_little(bench: Workbench, path: str) -> None:
    found = run(bench, keep=0.97, path=path, search="fast")
    assert 0 < len(found) < 5
    assert any("the search ends" in note for note in found[0].notes)
    assert all(1 - Slice(bench).lost(each.graph).mean() >= 0.97 for each in found)


def test_supports_below_epsilon_are_left_out(bench: Workbench) -> None:
    found = run(bench, epsilon=0.5, search="fast")
    assert len(found) < 5
    assert not found or any("epsilon" in note for note in found[0].notes)


def test_the_same_seed_gives_the_same_models(bench: Workbench) -> None:
    first, second = (run(bench, models=2, search="fast") for _ in range(2))
    for one, other in zip(first, second, strict=True):
        theirs = weights(other.graph)
        assert all(np.array_equal(weight, theirs[name]) for name, weight in weights(one.graph).items())
