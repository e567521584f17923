"""Paths, swaps and refits: none makes a layer's loss greater, and supports keep their number of weights."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.pruning import task
from tidemill.compress.hessian import hessian
from tidemill.compress.prune import obs, paths, supports
from tidemill.compress.prune.obs import Pattern
from tidemill.core.tensor import Array

seeds = st.integers(0, 1000)
shares = st.sampled_from([0.2, 0.5, 0.8])


def layer(seed: int) -> tuple[Array, Array]:
    asked = task(seed=seed)
    return asked.weight.astype(np.float64), hessian(asked.fit, centred=True).matrix


@settings(max_examples=20, deadline=None)
@given(seeds, shares)
def test_supports_keep_as_many_weights_as_asked(seed: int, share: float) -> None:
    weight, matrix = layer(seed)
    for support in (paths.lasso_support, paths.ridge_support):
        assert support(weight, matrix, Pattern(share)).sum() == weight.size - round(share * weight.size)


@settings(max_examples=20, deadline=None)
@given(seeds, shares)
def test_swaps_and_refits_never_raise_the_loss(seed: int, share: float) -> None:
    weight, matrix = layer(seed)
    mask = paths.lasso_support(weight, matrix, Pattern(share))
    cut = np.where(mask, weight, 0.0)
    fitted = obs.descend(weight, cut, mask, matrix, supports.DESCENTS)
    swapped, now = supports.swap(weight, mask, fitted, matrix, 6)
    refitted = obs.refit(weight, swapped, matrix)
    losses = [float(obs.loss(weight, each, matrix).sum()) for each in (cut, fitted, now, refitted)]
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(losses))
    assert swapped.sum() == mask.sum()
    assert not now[~swapped].any()


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_the_path_grows_denser_as_the_penalty_falls(seed: int) -> None:
    weight, matrix = layer(seed)
    path = paths.lasso_path(weight, matrix)
    assert (np.diff(path.penalties) < 0).all()
    assert path.zeros[-1] < path.zeros[0]
    assert path.masses[-1] > path.masses[0]


def test_the_solver_is_no_worse_than_its_second_order_support_and_deterministic() -> None:
    asked = task(out=8, features=24)
    options = {"shares": {"layer": 0.5}, "path": "lasso", "swaps": 8, "pool": 2, "search": "auto"}
    result = supports.SOLVER.solve(replace(asked, options=options))
    weight, of = asked.weight.astype(np.float64), hessian(asked.fit, centred=True)
    mask = obs.alternate(weight, of.matrix, Pattern(0.5), supports.SECOND_ORDER_ROUNDS)
    theirs = obs.loss(weight, obs.refit(weight, mask, of.matrix), of.matrix).sum()
    got = result.form.decode()
    assert (got == 0).mean() == 0.5
    assert obs.loss(weight, got.astype(np.float64), of.matrix).sum() <= theirs * (1 + 1e-4)
    again = supports.SOLVER.solve(replace(asked, options=options))
    assert np.array_equal(got, again.form.decode())
