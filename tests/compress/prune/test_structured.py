"""Which units go, in what order, and what is left."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.hessian import hessian
from tidemill.compress.prune import obs, structured
from tidemill.compress.prune.structured import Consumer
from tidemill.core.tensor import Array

from ..pruning import task


def consumer(out: int, units: int, width: int, seed: int, scale: float = 1.0) -> Consumer:
    asked = task(out, units * width, seed=seed)
    places = np.random.default_rng(seed).permutation(units * width).reshape(units, width)
    return Consumer(asked.weight.astype(np.float64), hessian(asked.fit).matrix, places, scale)


def lost(each: Consumer, units: Array) -> float:
    columns = np.sort(each.columns[units].ravel())
    pruned = np.zeros_like(each.weight)
    pruned[:, columns] = structured.fit(each.weight, each.matrix, columns)
    return each.scale * float(obs.loss(each.weight, pruned, each.matrix).sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 50))
def test_the_losses_told_on_the_way_are_what_the_fit_loses(units: int, width: int, consumers: int, seed: int) -> None:
    readers = [consumer(4, units, width, seed + each, 0.5 + each) for each in range(consumers)]
    found = structured.order(readers)
    assert sorted(found.units.tolist()) == list(range(units))
    assert len(found.losses) == units - 1
    assert (np.diff(found.losses) >= -1e-9).all()
    for count in range(1, units):
        told = found.losses[units - count - 1]
        assert np.isclose(sum(lost(each, found.keep(count)) for each in readers), told, rtol=1e-5, atol=1e-8)


def test_the_first_to_go_costs_least() -> None:
    readers = [consumer(5, 6, 2, 3)]
    first = structured.order(readers).units[0]
    costs = [lost(readers[0], np.delete(np.arange(6), unit)) for unit in range(6)]
    assert first == int(np.argmin(costs))


def test_a_unit_that_repeats_others_goes_for_nothing() -> None:
    """Two units carry the same signal: one of them makes up for the other."""
    rows = np.random.default_rng(0).normal(size=(300, 4))
    rows[:, 3] = rows[:, 1]
    matrix = rows.T @ rows / 300 + 1e-6 * np.eye(4)
    found = structured.order([Consumer(np.ones((2, 4)), matrix, np.arange(4)[:, None])])
    assert found.units[0] in {1, 3}
    assert found.losses[0] < 1e-5


def test_stopping_early_keeps_the_same_units() -> None:
    readers = [consumer(5, 9, 2, 1)]
    assert structured.order(readers).keep(4).tolist() == structured.order(readers, 4).keep(4).tolist()
