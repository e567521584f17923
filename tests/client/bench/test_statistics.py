"""Samples become medians, ratios and intervals."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.bench import statistics
from tidemill.client.bench.plan import Level
from tidemill.client.bench.statistics import Sample, bootstrap
from tidemill.client.result import Answer, Result

values = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)
LEVEL = Level(in_flight=4)


def point(**fields: float | None) -> Sample:
    known = {"sent": 10, "ok": 10, "per_second": 100.0, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "mean_ms": 1.0}
    return Sample(**{"errors": {}, **known, **fields})  # type: ignore[arg-type]


@given(values, st.integers(0, 99))
def test_an_interval_holds_the_median_and_lies_within_the_values(several: list[float], seed: int) -> None:
    found = bootstrap(several, seed)
    assert found is not None
    assert found.middle == pytest.approx(float(np.median(several)))
    assert min(several) - 1e-9 <= found.low <= found.middle + 1e-9
    assert found.middle - 1e-9 <= found.high <= max(several) + 1e-9
    assert bootstrap(several, seed) == found


@given(values, st.floats(0.1, 10), st.integers(0, 9))
def test_an_interval_scales_with_its_values(several: list[float], factor: float, seed: int) -> None:
    plain, scaled = bootstrap(several, seed), bootstrap([factor * each for each in several], seed)
    assert plain is not None
    assert scaled is not None
    assert (scaled.low, scaled.high) == pytest.approx((factor * plain.low, factor * plain.high))


def test_the_interval_of_the_median_holds_the_truth_as_often_as_it_says() -> None:
    """Goal: 95 % are about 95 %. Method: 300 draws of 25 values of a normal distribution around 7; the percentile
    interval of a median is known to be a little too sure of itself, never by much."""
    random = np.random.default_rng(3)
    held = 0
    for trial in range(300):
        found = bootstrap(random.normal(7, 1, 25).tolist(), trial, draws=400)
        assert found is not None
        held += found.low <= 7 <= found.high
    assert 0.88 <= held / 300 <= 0.99


def test_no_values_have_no_interval_and_one_value_is_its_own() -> None:
    assert bootstrap([]) is None
    one = bootstrap([2.5])
    assert one is not None
    assert (one.low, one.middle, one.high) == (2.5, 2.5, 2.5)


def test_a_ratio_is_taken_round_by_round() -> None:
    """The machine is twice as slow in the second round: the ratio does not see it, that of the medians would."""
    mine = [point(p50_ms=2.0), point(p50_ms=4.0), point(p50_ms=2.0)]
    theirs = [point(p50_ms=1.0), point(p50_ms=2.0)]
    found = statistics.ratio(LEVEL, mine, theirs)
    assert found.rounds == 2
    assert found.p50_ms is not None
    assert (found.p50_ms.low, found.p50_ms.middle, found.p50_ms.high) == (2.0, 2.0, 2.0)
    assert found.cpu_us is None


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=50), st.floats(0.1, 1000))
def test_goodput_counts_what_came_in_time(latencies: list[float], slo_ms: float) -> None:
    result = Result(wall_s=2.0)
    for number, latency in enumerate(latencies):
        result.take(Answer(number, 200, latency))
    result.sent = len(latencies)
    found = statistics.sample(result, Counter(), slo_ms=slo_ms)
    within = sum(latency <= slo_ms / 1e3 for latency in latencies)
    assert found.goodput == pytest.approx(within / 2.0)
    assert found.per_second == pytest.approx(len(latencies) / 2.0)
    assert found.p50_ms in [latency * 1e3 for latency in latencies]


def test_a_quick_error_is_no_quick_answer() -> None:
    result = Result(wall_s=1.0, sent=4, unsent=2)
    for answer in (
        Answer(0, 200, 0.2),
        Answer(1, 503, 0.001),
        Answer(2, 503, 0.001),
        Answer(3, None, 1.0, error="closed"),
    ):
        result.take(answer)
    found = statistics.sample(result, Counter({"admission.overloaded": 2}), cpu_s=0.03)
    assert (found.ok, found.per_second, found.p50_ms) == (1, 1.0, pytest.approx(200))
    assert found.errors == {"admission.overloaded": 2, "closed": 1, "not sent: every connection was busy": 2}
    assert found.cpu_us == pytest.approx(10_000)


def test_nothing_answered_has_no_percentiles() -> None:
    found = statistics.sample(Result(wall_s=1.0, sent=1), Counter(), cpu_s=1.0)
    assert (found.p50_ms, found.mean_ms, found.cpu_us, found.per_second) == (None, None, None, 0.0)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=7))
def test_a_summary_tells_medians_and_adds_counts(p99s: list[float]) -> None:
    found = statistics.summary("this", LEVEL, [point(p99_ms=each, errors={"x": 1}) for each in p99s])
    assert found.p99_ms == pytest.approx(float(np.median(p99s)))
    assert (found.sent, found.ok, found.errors) == (10 * len(p99s), 10 * len(p99s), {"x": len(p99s)})
    assert found.cpu_us is None
    assert not math.isnan(found.per_second)
