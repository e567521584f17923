from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.compress.prune.classic import walk
from tidemill.compress.prune.programme import FREE


@given(st.integers(0, 10_000), st.floats(0.05, 3.0), st.integers(0, 40))
def test_it_stops_with_every_constraint_held_one_step_a_round(seed: int, most: float, steps_max: int) -> None:
    chance = np.random.default_rng(seed)
    rises = chance.random((2, 14))
    sets = np.array([FREE] * 6 + [0] * 4 + [1] * 4)
    rises[:, 6:] = np.sort(rises[:, 6:].reshape(2, 2, 4), axis=2).reshape(2, 8)
    rises[:, [6, 10]] = 0
    sizes = np.array([-1.0] * 6 + [4.0, 3.0, 2.0, 1.0] * 2)
    start = np.zeros(14, np.bool_)
    start[[6, 10]] = True
    found = walk(start, rises, sizes, sets, np.zeros(2), most, 5.0, steps_max)
    assert found.steps <= steps_max
    assert found.steps <= 12
    assert found.ended
    y = rises @ found.taken
    # Each round looks at one answer; the other one may be over by what that round's step did to it.
    assert y.min() <= most + 1e-9
    assert found.taken[6:10].sum() == found.taken[10:].sum() == 1
    moved = found.taken[:6].sum() + (np.flatnonzero(found.taken[6:10]) + np.flatnonzero(found.taken[10:]))[0]
    assert moved == found.steps


def test_the_least_step_of_each_answer_in_turn() -> None:
    rises = np.array([[3.0, 1.0, 2.0], [1.0, 9.0, 2.0]])
    sizes, sets = np.full(3, -1.0), np.full(3, FREE)
    first = walk(np.zeros(3, np.bool_), rises, sizes, sets, np.zeros(2), 100.0, -9.0, 1)
    assert first.taken.tolist() == [False, True, False]
    second = walk(np.zeros(3, np.bool_), rises, sizes, sets, np.zeros(2), 100.0, -9.0, 2)
    assert second.taken.tolist() == [True, True, False]


def test_it_says_which_answer_has_no_step_left() -> None:
    found = walk(
        np.zeros(2, np.bool_), np.array([[1.0, 2.0]]), np.full(2, -1.0), np.full(2, FREE), np.zeros(1), 1.5, -9.0, 9,
        names=["logits"],
    )  # fmt: skip
    assert found.taken.tolist() == [True, False]
    assert "logits" in found.ended
