"""Loads and their order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.bench.plan import Level, Plan, levels, turns
from tidemill.core.errors import InvalidSetting


def plan(several: tuple[Level, ...], rounds: int) -> Plan:
    return Plan(several, rounds, 1.0, 100, 0.5, 8, 5.0)


@given(st.integers(1, 4096))
def test_levels_double_up_to_the_most(most: int) -> None:
    found = [each.in_flight for each in levels(most, [])]
    assert found[0] == 1
    assert found[-1] == most
    assert all(one < other <= 2 * one for one, other in pairwise(found))


def test_rates_follow_ascending_and_once() -> None:
    assert [each.label for each in levels(2, [50, 10, 50])] == ["1 in flight", "2 in flight", "10/s", "50/s"]


@pytest.mark.parametrize(("most", "rates"), [(0, []), (1, [0.0]), (1, [float("inf")]), (0, list(range(1, 70)))])
def test_no_load_or_too_many_are_refused(most: int, rates: list[float]) -> None:
    with pytest.raises(InvalidSetting):
        levels(most, rates)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_every_side_meets_every_level_in_every_round_and_none_always_begins(
    rounds: int, count: int, sides: int
) -> None:
    order = list(turns(plan(levels(0, range(1, count + 1)), rounds), range(sides)))
    assert Counter(order) == {
        (turn, level, side): 1
        for turn in range(rounds)
        for level in levels(0, range(1, count + 1))
        for side in range(sides)
    }
    visits = [order[at : at + sides] for at in range(0, len(order), sides)]
    assert all(len({(turn, level) for turn, level, _ in visit}) == 1 for visit in visits), "sides are measured together"
    firsts = Counter(visit[0][2] for visit in visits)
    assert max(firsts.values()) - min(firsts.get(side, 0) for side in range(sides)) <= 1


def test_the_time_it_takes_is_known_before() -> None:
    assert plan(levels(4, []), 2).seconds_in_all(2) == 2 * (0.5 + 2 * 3 * 1.0)
