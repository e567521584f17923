from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.observe.histogram import POWERS_OF_TWO, SECONDS, Histogram

values = st.lists(st.floats(0, 99.0), min_size=1, max_size=60)


@given(values, st.floats(0, 1))
def test_quantile_lies_in_the_bucket_of_the_true_one(observed: list[float], share: float) -> None:
    histogram = Histogram()
    for value in observed:
        histogram.observe(value)
    found = histogram.quantile(share)
    rank = max(0, -int(-share * len(observed) // 1) - 1)
    true = sorted(observed)[min(rank, len(observed) - 1)]
    place = bisect_left(SECONDS, true)
    assert (SECONDS[place - 1] if place else 0.0) <= found <= SECONDS[place]


@given(values, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_with_their_share(observed: list[float], one: float, other: float) -> None:
    histogram = Histogram()
    for value in observed:
        histogram.observe(value)
    assert histogram.quantile(min(one, other)) <= histogram.quantile(max(one, other))


@given(st.lists(st.floats(0, 1e9), max_size=60))
def test_nothing_is_lost_however_large(observed: list[float]) -> None:
    histogram = Histogram(POWERS_OF_TWO)
    for value in observed:
        histogram.observe(value)
    assert histogram.count == len(observed)
    assert histogram.total == pytest.approx(sum(observed))


def test_empty_one_tells_nothing_and_what_lies_beyond_tells_the_last_bound() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) == 0.0
    histogram.observe(1e6)
    assert histogram.quantile(0.5) == SECONDS[-1]


@pytest.mark.parametrize("bounds", [SECONDS, POWERS_OF_TWO])
def test_bounds_rise_and_a_bound_belongs_to_its_own_bucket(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
    histogram = Histogram(bounds)
    for bound in bounds:
        histogram.observe(bound)
    assert histogram.counts == [1] * len(bounds) + [0]
