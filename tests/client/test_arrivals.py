"""A Poisson schedule is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.arrivals import poisson
from tidemill.core.errors import InvalidSetting


@given(st.floats(0.01, 2000), st.floats(0.01, 10), st.integers(0, 2**32))
def test_arrivals_ascend_within_the_time_and_are_at_least_one(rate: float, seconds: float, seed: int) -> None:
    found = poisson(rate, seconds, seed)
    assert found
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < seconds


@given(st.floats(1, 500), st.integers(0, 2**32))
def test_one_seed_gives_one_schedule(rate: float, seed: int) -> None:
    assert poisson(rate, 1.0, seed) == poisson(rate, 1.0, seed)


@given(st.integers(0, 1000))
def test_as_many_come_as_the_rate_says_with_exponential_gaps(seed: int) -> None:
    """Goal: Poisson, not just random. Method: 20,000 arrivals; their number within 6 standard deviations, mean and
    standard deviation of the gaps alike (they are for exponential gaps alone among the simple ones)."""
    found = poisson(2000.0, 10.0, seed)
    assert abs(len(found) - 20_000) < 6 * 20_000**0.5
    gaps = np.diff(found)
    assert gaps.mean() == pytest.approx(1 / 2000, rel=0.06)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.06)


@pytest.mark.parametrize(
    ("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (float("inf"), 1), (float("nan"), 1), (1e6, 10)]
)
def test_a_rate_that_means_nothing_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(InvalidSetting):
        poisson(rate, seconds, 0)
