"""Rates from overviews."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.console import rates
from tidemill.console.rates import GAP_S, History, batch_rows, busiest, failures_s, increase, requests_s
from tidemill.console.snapshot import Latency, Model, Overview, Service


def overview(*models: Model, started_at: float = 1.0) -> Overview:
    return Overview(Service(version="0", started_at=started_at, uptime_s=1, ready=True), models)


def model(requests: int = 0, *, name: str = "m", failed: int = 0, batches: int = 0, rows: int = 0) -> Model:
    return Model(
        name, 1, "AVAILABLE", requests=requests, failures={"input.shape": failed}, batches=batches, rows=rows,
        latency_s=Latency(0.1, 0.2, 0.3),
    )  # fmt: skip


def history(*overviews: Overview, points_max: int = 300) -> History:
    """One overview a second."""
    kept = History(points_max)
    for second, each in enumerate(overviews):
        kept.add(1000.0 + second, float(second), each)
    return kept


def test_a_rate_needs_two_overviews() -> None:
    assert requests_s(history(overview(model(5))).recent()) is None
    assert requests_s(history(overview(model(5)), overview(model(15))).recent()) == 10


def test_a_model_that_appears_began_at_zero() -> None:
    assert requests_s(history(overview(), overview(model(4))).recent()) == 4


def test_a_restarted_service_began_at_zero_even_where_its_counters_are_greater() -> None:
    kept = history(overview(model(5)), overview(model(9), started_at=2.0))
    assert requests_s(kept.recent()) == 9


def test_a_reloaded_model_resets_all_its_counters_together() -> None:
    before, after = model(50, batches=10, rows=50), model(3, batches=3, rows=60)
    assert batch_rows(history(overview(before), overview(after)).recent()) == 20


def test_a_long_silence_is_a_gap_and_no_rate() -> None:
    kept = History()
    kept.add(0.0, 0.0, overview(model(0)))
    kept.add(GAP_S + 1, GAP_S + 1, overview(model(1000)))
    assert [point.models for point in kept.points] == [None]
    kept.add(GAP_S + 2, GAP_S + 2, overview(model(1003)))
    assert requests_s(kept.recent()) == 3


def test_a_service_away_breaks_the_line_once_and_keeps_the_last_figures() -> None:
    kept = history(overview(model(0)), overview(model(5)))
    kept.miss(1002.0)
    kept.miss(1003.0)
    assert len(kept.points) == 2
    assert requests_s(kept.recent()) == 5


def test_two_overviews_of_one_moment_make_no_point() -> None:
    kept = history(overview(model(0)))
    kept.add(1000.0, 0.0, overview(model(5)))
    assert not kept.points
    kept.add(1001.0, 1.0, overview(model(6)))
    assert requests_s(kept.recent()) == 6


def test_failures_and_the_busiest() -> None:
    first = overview(model(0, name="a"), model(0, name="b"))
    kept = history(first, overview(model(1, name="a", failed=2), model(9, name="b")))
    assert failures_s(kept.recent()) == 2
    assert failures_s(kept.recent(), ("b", 1)) == 0
    assert busiest(list(kept.points)) == [("b", 1), ("a", 1)]


def test_the_mean_batch_weighs_batches_not_seconds() -> None:
    kept = history(overview(model()), overview(model(batches=1, rows=1)), overview(model(batches=4, rows=31)))
    assert batch_rows(kept.recent()) == pytest.approx(31 / 4)
    assert batch_rows(history(overview(model()), overview(model())).recent()) is None


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=30))
def test_a_counter_never_shrinks(values: list[int]) -> None:
    assert all(increase(before, after) >= 0 for before, after in itertools.pairwise(values))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.sets(st.integers(1, 39)))
def test_every_request_is_counted_once_whatever_is_reset(grows: list[int], resets: set[int]) -> None:
    """Goal: resets lose nothing that was seen after them. Method: a counter with resets, against its steps."""
    value, overviews, expected = 0, [overview(model(0))], 0
    for second, grow in enumerate(grows, start=1):
        value = grow if second in resets else value + grow
        started_at = 1.0 + sum(1 for reset in resets if reset <= second)
        overviews.append(overview(model(value), started_at=started_at))
        expected += grow
    points = history(*overviews).points
    assert sum((point.models or {})["m", 1].requests for point in points) == expected
    assert requests_s(points) == pytest.approx(expected / len(grows))


@given(st.integers(1, 20), st.integers(0, 60))
def test_the_history_is_bounded(points_max: int, count: int) -> None:
    kept = history(*(overview(model(each)) for each in range(count)), points_max=points_max)
    assert len(kept.points) <= points_max
    assert len(kept.recent()) <= rates.RECENT


def test_a_model_that_was_never_asked_has_no_latency() -> None:
    never = Model("m", 1, "AVAILABLE", latency_s=Latency(0.0, 0.0, 0.0))
    assert (never.p50_s, never.p99_s) == (None, None)
    assert (model(1).p50_s, model(1).p99_s) == (0.1, 0.3)
