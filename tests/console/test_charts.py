"""Histories as charts."""

from __future__ import annotations

from tidemill.console.charts import LINES_MAX, OTHERS, batches, latency, traffic
from tidemill.console.rates import Growth, Point


def point(at: float, *requests: int, **more: float) -> Point:
    return Point(at, 1.0, {(f"m{i}", 1): Growth(requests=each, **more) for i, each in enumerate(requests)})  # type: ignore[arg-type]


def test_each_model_with_traffic_has_a_line() -> None:
    lines = traffic([point(10, 3, 0, 5)], now=11)["series"]
    assert {line["name"]: line["data"] for line in lines} == {"m0 v1": [[10_000, 3]], "m2 v1": [[10_000, 5]]}


def test_many_models_share_one_line_and_none_is_lost() -> None:
    count = LINES_MAX + 4
    lines = traffic([point(10, *range(1, count + 1))], now=11)["series"]
    assert len(lines) == LINES_MAX + 1
    assert lines[-1]["name"] == OTHERS
    assert sum(line["data"][0][1] for line in lines) == sum(range(1, count + 1))


def test_a_gap_breaks_every_line() -> None:
    points = [point(10, 3, p50_s=0.007), Point(11, 0.0, None)]
    assert traffic(points, 12)["series"][0]["data"][1] == [11_000, None]
    p99, p50 = latency(points, 12, ("m0", 1))["series"]
    assert p50["data"] == [[10_000, 7.0], [11_000, None]]
    assert p99["data"][0] == [10_000, None]


def test_batches_are_a_mean_over_the_last_points() -> None:
    points = [point(10, 3, batches=1, rows=2), point(11, 3, batches=1, rows=6), point(12, 0)]
    assert [value for _, value in batches(points, 12, ("m0", 1))["series"][0]["data"]] == [2, 4, 4]


def test_without_a_model_the_charts_are_empty() -> None:
    assert traffic([], 10)["series"] == []
    assert batches([point(10)], 10, None)["series"][0]["data"] == [[10_000, None]]
