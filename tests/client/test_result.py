"""Counting what a load generator saw."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.result import Answer, Quota, Result, percentile
from tidemill.core.errors import InvalidSetting


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(0, 100))
def test_a_percentile_is_one_of_the_values_with_that_share_below(values: list[float], percent: int) -> None:
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(Result().p50_ms)


def test_each_request_is_counted_once() -> None:
    result = Result()
    for answer in (Answer(0, 200, 0.001), Answer(1, 503, 0.003), Answer(2, None, 9.0, error="closed")):
        result.take(answer)
    assert (result.ok, result.answered, result.lost) == (1, 2, 1)
    assert result.p99_ms == pytest.approx(3.0)


def test_a_quota_of_seconds_ends_with_the_clock() -> None:
    now = 5.0
    quota = Quota(lambda: now, 1, None, 2.0)
    assert quota.next() == 0
    now = 6.9
    assert quota.next() == 1
    now = 7.0
    assert quota.next() is None


@pytest.mark.parametrize(
    ("in_flight", "requests", "seconds"), [(0, 1, None), (1, None, None), (1, 0, None), (1, None, 0.0)]
)
def test_a_quota_that_means_nothing_is_refused(in_flight: int, requests: int | None, seconds: float | None) -> None:
    with pytest.raises(InvalidSetting):
        Quota(lambda: 0.0, in_flight, requests, seconds)
