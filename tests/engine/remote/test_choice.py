from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tidemill.engine.remote.choice import RETRIES_AT_ONCE, Budget, Standing, choose


def standing(*weights: int) -> list[Standing]:
    return [Standing(str(number), weight) for number, weight in enumerate(weights)]


def names(every: list[Standing], count: int, now: float = 0.0) -> list[str]:
    found = [choose(every, (), now) for _ in range(count)]
    return [each.name for each in found if each is not None]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_each_gets_exactly_its_share_of_every_round(weights: list[int]) -> None:
    every = standing(*weights)
    for _ in range(3):
        assert Counter(names(every, sum(weights))) == {str(n): weight for n, weight in enumerate(weights)}


def test_shares_are_spread_and_not_bunched() -> None:
    assert names(standing(5, 1, 1), 7) == ["0", "0", "1", "0", "2", "0", "0"]


def test_one_that_was_tried_is_not_asked_again() -> None:
    every = standing(1, 1)
    assert choose(every, ("0",), 0.0) is every[1]
    assert choose(every, ("0", "1"), 0.0) is None


def test_sick_one_is_left_alone_and_then_tried_by_one_request_at_a_time() -> None:
    every = standing(1, 1)
    sick = every[0]
    assert [sick.failed(100.0, 3, 10.0) for _ in range(3)] == [False, False, True]
    assert names(every, 3, 109.9) == ["1"] * 3
    assert sick.open(110.0)
    sick.asked()
    assert not sick.open(110.0)
    assert not sick.failed(110.0, 3, 10.0)
    assert not sick.open(119.9)
    sick.asked()
    sick.well()
    assert set(names(every, 4, 119.9)) == {"0", "1"}


def test_one_that_answered_begins_to_count_its_failures_anew() -> None:
    (one,) = standing(1)
    for _ in range(5):
        assert not one.failed(0.0, 3, 10.0)
        assert not one.failed(0.0, 3, 10.0)
        one.well()
    assert one.open(0.0)


def test_trial_that_ended_without_a_word_lets_the_next_try() -> None:
    (one,) = standing(1)
    one.failed(0.0, 1, 10.0)
    for end in (one.busy, one.left):
        one.asked()
        assert not one.open(10.0)
        end()
        assert one.open(10.0)


@given(st.integers(1, 500), st.floats(0.0, 1.0))
def test_retries_are_never_more_than_their_share_and_those_saved(requests: int, share: float) -> None:
    budget = Budget(share)
    retries = 0
    for _ in range(requests):
        budget.request()
        retries += sum(budget.retry() for _ in range(3))
    assert retries <= requests * share + (RETRIES_AT_ONCE if share else 0) + 1e-6


def test_without_a_share_nothing_is_asked_again() -> None:
    budget = Budget(0.0)
    budget.request()
    assert not budget.retry()
