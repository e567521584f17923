"""What is counted of a model, as it is told."""

from __future__ import annotations

from tidemill.core.running import BatchCounts, Counts, Timed
from tidemill.observe.stats import SIZES_MAX, ModelStats


def test_nothing_is_told_of_what_never_ran() -> None:
    assert ModelStats().counts(10.0, 1e12) == Counts()


def test_runs_are_counted_by_their_rows_and_requests_apart() -> None:
    stats = ModelStats()
    stats.ran(rows=8, input_s=0.5, infer_s=2.0, output_s=0.25)
    stats.ran(rows=1, input_s=0.0, infer_s=1.0, output_s=0.0)
    stats.shared.add(3, 1.5, 6.0, 0.75)
    stats.answered(latency_s=4.0, queued_s=1.0)
    counts = stats.counts(0.0, 0.0)
    assert counts.runs == 2
    assert counts.success == Timed(1, 4_000_000_000)
    assert counts.infer == Timed(3, 6_000_000_000)
    assert counts.queued == Timed(3, 1_000_000_000)
    assert counts.batches == (
        BatchCounts(1, Timed(1, 0), Timed(1, 1_000_000_000), Timed(1, 0)),
        BatchCounts(8, Timed(1, 500_000_000), Timed(1, 2_000_000_000), Timed(1, 250_000_000)),
    )


def test_the_last_request_is_told_by_the_calendar() -> None:
    stats = ModelStats()
    stats.last_at = 100.0
    assert stats.counts(now=103.5, now_ms=1_000_000.0).last_ms == 996_500


def test_sizes_beyond_the_bound_are_counted_all_together_only() -> None:
    stats = ModelStats()
    for rows in range(1, SIZES_MAX + 10):
        stats.ran(rows, 0.0, 1.0, 0.0)
    counts = stats.counts(0.0, 0.0)
    assert len(counts.batches) == SIZES_MAX
    assert counts.runs == SIZES_MAX + 9


def test_failures_of_every_code_are_failures() -> None:
    stats = ModelStats()
    for code in ("input.shape", "input.shape", "engine.failed"):
        stats.failed(code)
    stats.failed_s = 0.5
    assert stats.counts(0.0, 0.0).failed == Timed(3, 500_000_000)
