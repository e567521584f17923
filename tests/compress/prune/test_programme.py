"""A 0-1 programme's answers obey it, and are the best there are where all can be tried."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.prune.programme import FREE, Limit, Programme, repair, solve
from tidemill.core.tensor import Array

seeds = st.integers(0, 10_000)


def programme(seed: int, tight: float = 0.5) -> Programme:
    """Six free variables and two sets of three, under two limits."""
    chance = np.random.default_rng(seed)
    sets = np.array([FREE] * 6 + [0] * 3 + [1] * 3)
    costs = chance.normal(size=12)
    first, second = chance.normal(size=(2, 12))
    return Programme(
        costs,
        [Limit("a", first, tight * float(np.abs(first).mean())), Limit("b", second, float(np.abs(second).mean()))],
        sets,
    )


def every(of: Programme) -> list[Array]:
    found = [np.array(each, np.bool_) for each in itertools.product((False, True), repeat=len(of.costs))]
    return [taken for taken in found if of.obeyed(taken)]


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([-3.0, -0.5, 0.5, 2.0]))
def test_what_is_taken_obeys_every_limit_and_costs_least(seed: int, tight: float) -> None:
    of = programme(seed, tight)
    taken, all_of_them = solve(of), every(of)
    if not all_of_them:
        assert taken is None
        return
    assert taken is not None
    assert of.obeyed(taken)
    least = min(float(of.costs @ each) for each in all_of_them)
    assert float(of.costs @ taken) <= least + 1e-3 * abs(least) + 1e-9


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_what_was_repaired_obeys_every_limit(seed: int) -> None:
    of = programme(seed)
    chance = np.random.default_rng(seed + 1)
    start = chance.random(12) < 0.5
    start[6:] = False
    start[[6 + chance.integers(3), 9 + chance.integers(3)]] = True
    mended = repair(of, start)
    assert mended is None or of.obeyed(mended)
    if of.obeyed(start):
        assert mended is not None
        assert (mended == start).all()


def test_the_cheapest_flip_repairs() -> None:
    of = Programme(np.array([0.0, -1.0, -3.0]), [Limit("size", np.ones(3), 2.0)], np.full(3, FREE))
    mended = repair(of, np.ones(3, np.bool_))
    assert mended is not None
    assert mended.tolist() == [False, True, True]


def test_what_is_not_allowed_is_not_taken() -> None:
    of = Programme(np.array([-1.0, -2.0]), [], np.full(2, FREE), np.array([True, False]))
    taken = solve(of)
    assert taken is not None
    assert taken.tolist() == [True, False]


def test_nothing_is_taken_where_no_choice_obeys() -> None:
    of = Programme(np.zeros(2), [Limit("size", np.array([1.0, 2.0]), 0.5)], np.zeros(2, int))
    assert solve(of) is None
    assert repair(of, np.array([True, False])) is None


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_the_units_do_not_matter(scale: float) -> None:
    costs, sizes = np.array([3.0, 1.0, 2.0]) * scale, np.array([-4.0, -2.0, -3.0]) * scale
    taken = solve(Programme(costs, [Limit("size", sizes, -5.0 * scale)], np.full(3, FREE)))
    assert taken is not None
    assert taken.tolist() == [False, True, True]
