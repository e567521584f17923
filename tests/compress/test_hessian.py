"""The damped Hessian: what it inverts to, and what it says of too little or broken data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compress_nets
from tidemill.compress.capture import Capture, stages
from tidemill.compress.graph import Graph
from tidemill.compress.hessian import hessian
from tidemill.compress.task import Moments
from tidemill.core.errors import RefusedLayer


def moments(inputs: np.ndarray) -> Moments:
    counts, edges = np.histogram(inputs, 64)
    second = inputs.T @ inputs / len(inputs)
    return Moments(len(inputs), second, inputs.mean(0), inputs.min(0), inputs.max(0), counts, edges)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_upper_factor_is_that_of_the_inverse_in_any_order(seed: int, columns: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    found = hessian(moments(rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns))))
    order = rng.permutation(columns)
    upper = found.upper(order)
    assert np.array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(upper.T @ upper @ found.matrix[np.ix_(order, order)], np.eye(columns), atol=1e-6)
    np.testing.assert_allclose(found.inverse() @ found.matrix, np.eye(columns), atol=1e-6)


def test_too_few_rows_are_said_with_the_rank() -> None:
    found = hessian(moments(np.random.default_rng(0).normal(size=(3, 8))))
    assert found.rank == 3
    assert "3 rows give H rank 3 of 8" in " ".join(found.notes)


@pytest.mark.parametrize("rows", [1, 6, 20])
def test_the_rank_of_captured_moments_is_at_most_the_rows(tmp_path: Path, rows: int) -> None:
    graph = Graph.from_model(compress_nets.mlp())
    todo = stages(graph.layers())
    with Capture(graph, None, todo, compress_nets.data([24], rows=rows, held=4), tmp_path) as capture:
        for stage in todo:
            for (each,) in capture.take(stage, changes=False).values():
                size = len(each.fit.mean)
                assert hessian(each.fit).rank <= min(rows, size)
                assert hessian(each.fit, centred=True).rank <= min(rows - 1, size)
                assert f"{rows} rows give H rank" in " ".join(hessian(each.fit).notes)


def test_captured_moments_of_many_rows_are_of_full_rank(tmp_path: Path) -> None:
    graph = Graph.from_model(compress_nets.mlp())
    todo = stages(graph.layers())[:1]
    with Capture(graph, None, todo, compress_nets.data([24], rows=400, held=4), tmp_path) as capture:
        ((each,),) = capture.take(todo[0], changes=False).values()
    assert hessian(each.fit).rank == hessian(each.fit, centred=True).rank == 24


def test_an_input_far_smaller_than_the_others_counts() -> None:
    inputs = np.random.default_rng(0).normal(size=(400, 3)) * [1.0, 1e-4, 1e3]
    assert hessian(moments(inputs)).rank == 3


def test_inputs_that_never_vary_are_marked_and_said() -> None:
    inputs = np.random.default_rng(0).normal(size=(40, 4))
    inputs[:, 2] = 0
    found = hessian(moments(inputs))
    assert found.dead.tolist() == [False, False, True, False]
    assert "1 of 4 inputs never vary" in " ".join(found.notes)


def test_constant_inputs_are_dead_once_centred() -> None:
    inputs = np.random.default_rng(0).normal(size=(400, 3))
    inputs[:, 1] = 5.0
    assert hessian(moments(inputs), centred=True).dead.tolist() == [False, True, False]
    assert not hessian(moments(inputs)).dead.any()


def test_inputs_of_zeros_alone_weigh_all_weights_alike() -> None:
    found = hessian(moments(np.zeros((5, 3))))
    assert found.rank == 0
    assert np.array_equal(found.matrix, np.eye(3))
    assert "nothing but constant or zero inputs" in found.notes[0]


def test_singular_moments_are_damped_harder_and_it_is_said() -> None:
    found = hessian(moments(np.ones((5, 6)) * 1e3), 0.0)
    assert found.damping > 1e-12
    assert "singular" in " ".join(found.notes)
    assert np.isfinite(found.inverse()).all()


def test_a_matrix_of_no_moments_is_refused() -> None:
    broken = moments(np.random.default_rng(0).normal(size=(9, 2)))
    wrong = Moments(
        9, np.array([[1.0, 1e9], [1e9, 1.0]]), broken.mean, broken.low, broken.high, broken.histogram, broken.edges
    )
    with pytest.raises(RefusedLayer, match="second moments"):
        hessian(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_moments_that_are_not_finite_are_refused(value: float) -> None:
    good = moments(np.random.default_rng(0).normal(size=(9, 2)))
    second = good.second.copy()
    second[0, 0] = value
    with pytest.raises(RefusedLayer, match="not all finite"):
        hessian(Moments(9, second, good.mean, good.low, good.high, good.histogram, good.edges))
