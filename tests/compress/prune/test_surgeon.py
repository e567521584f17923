"""The solver of `laplace`, as the engine asks it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.prune.surgeon import SOLVER, read_pattern
from tidemill.compress.task import output_error
from tidemill.core.errors import InvalidRecipe, RefusedLayer

from ..pruning import inputs, moments, task


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 6), st.integers(2, 19), st.sampled_from(["none", "2:4", "1:3"]), st.booleans(), st.integers(0, 50)
)
def test_the_solver_never_loses_more_than_cutting_by_its_own_mask(
    out: int, features: int, pattern: str, bias: bool, seed: int
) -> None:
    asked = task(out, features, seed=seed, bias=bias, options={"sparsity": 0.5, "pattern": pattern, "damping": 1e-4})
    result = SOLVER.solve(asked)
    pruned = result.form.decode()
    cut = np.where(pruned != 0, asked.weight, 0)
    assert result.error_fit <= output_error(asked.weight, cut, asked.fit) * 1.01 + 1e-4
    again = SOLVER.solve(asked)
    assert np.array_equal(again.form.decode(), pruned)
    assert (result.bias is None) == (not bias)


def test_the_error_that_is_told_is_what_the_rows_show() -> None:
    asked = task(5, 12, options={"sparsity": 0.5})
    rows = inputs(12, 200, 2)
    result = SOLVER.solve(asked)
    lost = rows @ (asked.weight - result.form.decode()).T + (asked.bias - result.bias)
    shown = (lost**2).sum() / ((rows @ asked.weight.T) ** 2).sum()
    assert np.isclose(result.error_held, shown, rtol=1e-3)


def test_the_mean_output_is_kept() -> None:
    asked = task(5, 12, options={"sparsity": 0.7})
    result = SOLVER.solve(asked)
    mean = asked.fit.mean
    assert np.allclose(asked.weight @ mean + asked.bias, result.form.decode() @ mean + result.bias, atol=1e-4)


def test_a_singular_h_is_damped_and_told() -> None:
    asked = task(4, 32, count=8, options={"sparsity": 0.5})
    result = SOLVER.solve(asked)
    assert result.damping > 0
    assert any("rank" in note for note in result.notes)
    assert np.isfinite(result.form.decode()).all()


def test_inputs_that_never_vary_are_dropped_first() -> None:
    rows = inputs(8, 100, 1)
    rows[:, :4] = 0.0
    asked = replace(task(3, 8), fit=moments(rows), held=moments(rows), options={"sparsity": 0.5})
    result = SOLVER.solve(asked)
    assert not result.form.decode()[:, :4].any()
    assert result.error_fit < 1e-6


def test_a_layer_has_a_sparsity_of_its_own_where_one_is_given() -> None:
    result = SOLVER.solve(task(4, 20, options={"sparsity": 0.5, "shares": {"layer": 0.8}}))
    assert (result.form.decode() == 0).mean() == pytest.approx(0.8)


def test_whole_columns_go_and_the_others_make_up_for_them() -> None:
    asked = task(6, 12, options={"units": {"layer": {"width": 3, "keep": 2}}})
    pruned = SOLVER.solve(asked).form.decode()
    kept = pruned.reshape(6, 4, 3).any(axis=(0, 2))
    assert kept.sum() == 2
    named = replace(asked, options={"units": {"layer": {"columns": np.flatnonzero(pruned.any(axis=0)).tolist()}}})
    assert np.allclose(SOLVER.solve(named).form.decode(), pruned, atol=1e-5)


def test_weights_that_are_not_finite_are_refused() -> None:
    asked = task(3, 8)
    asked.weight[0, 0] = np.nan
    with pytest.raises(RefusedLayer, match="finite"):
        SOLVER.solve(asked)


@pytest.mark.parametrize("words", ["4:2", "0:4", "2-4", "2:4:1", "x"])
def test_a_pattern_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(InvalidRecipe, match="2:4"):
        read_pattern(words, 0.5)
