"""From one overview to the next: how much each counter grew, and how fast. Pure; runs in the console's process.

A counter that is smaller than before began again at zero (a reloaded model, a restarted service): what it shows now
is all that it grew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tidemill.console.snapshot import Model, ModelKey, Overview

POINTS_MAX = 300
GAP_S = 5.0
"""Two overviews further apart than this are not joined: nobody looked in between, or the service was away."""
RECENT = 5
"""Points that a tile is averaged over, so that it can be read while it moves."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What one model did within one point."""

    requests: int = 0
    failures: int = 0
    batches: int = 0
    rows: int = 0
    p50_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """The time up to `at` (Unix time). `models` is None in a gap: nothing is known of it."""

    at: float
    seconds: float
    models: dict[ModelKey, Growth] | None


def increase(before: int, after: int) -> int:
    """How much a counter grew; never negative."""
    return after - before if after >= before else after


def grown(before: Overview, after: Overview) -> dict[ModelKey, Growth]:
    """What every model of `after` did since `before`; one that `before` lacks began at zero."""
    restarted = before.service.started_at != after.service.started_at
    old: dict[ModelKey, Model] = {} if restarted else {model.key: model for model in before.models}
    return {model.key: _growth(old.get(model.key), model) for model in after.models}


def _growth(before: Model | None, after: Model) -> Growth:
    p50_s, p99_s = after.p50_s, after.p99_s
    if before is None or after.requests < before.requests or after.batches < before.batches:
        return Growth(after.requests, after.failed, after.batches, after.rows, p50_s, p99_s)
    return Growth(
        requests=increase(before.requests, after.requests),
        failures=increase(before.failed, after.failed),
        batches=increase(before.batches, after.batches),
        rows=increase(before.rows, after.rows),
        p50_s=p50_s,
        p99_s=p99_s,
    )


class History:
    """The last `points_max` points, oldest first. Owned by one poller."""

    def __init__(self, points_max: int = POINTS_MAX) -> None:
        self.points: deque[Point] = deque(maxlen=points_max)
        self._last: tuple[float, Overview] | None = None

    def add(self, at: float, clock_s: float, overview: Overview) -> None:
        """Take an overview that came at `at` (Unix time) and `clock_s` (a clock that never jumps)."""
        last, self._last = self._last, (clock_s, overview)
        if last is None:
            return
        seconds = clock_s - last[0]
        if seconds <= 0:
            self._last = last
        elif seconds > GAP_S:
            self.points.append(Point(at, seconds, None))
        else:
            self.points.append(Point(at, seconds, grown(last[1], overview)))

    def miss(self, at: float) -> None:
        """Nothing came at `at`: the lines break here."""
        if self.points and self.points[-1].models is not None:
            self.points.append(Point(at, 0.0, None))

    def clear(self) -> None:
        self.points.clear()
        self._last = None

    def recent(self, count: int = RECENT) -> list[Point]:
        """The last points, all from one side of a gap; while the service is away, those from before."""
        found: list[Point] = []
        for point in reversed(self.points):
            if len(found) == count or (found and point.models is None):
                break
            if point.models is not None:
                found.append(point)
        return found[::-1]


def requests_s(points: Iterable[Point], key: ModelKey | None = None) -> float | None:
    """Requests per second over `points`, of one model or of all; None when the points hold no time."""
    return _per_second([(point, sum(growth.requests for growth in _of(point, key))) for point in points])


def failures_s(points: Iterable[Point], key: ModelKey | None = None) -> float | None:
    """Failures per second over `points`, as `requests_s`."""
    return _per_second([(point, sum(growth.failures for growth in _of(point, key))) for point in points])


def batch_rows(points: Sequence[Point], key: ModelKey | None = None) -> float | None:
    """Mean size of the batches that ran within `points`; None when none ran."""
    batches = sum(growth.batches for point in points for growth in _of(point, key))
    rows = sum(growth.rows for point in points for growth in _of(point, key))
    return rows / batches if batches else None


def busiest(points: Sequence[Point]) -> list[ModelKey]:
    """Every model of `points`, the one with the most requests first; a tie goes by name."""
    total: dict[ModelKey, int] = {}
    for point in points:
        for key, growth in (point.models or {}).items():
            total[key] = total.get(key, 0) + growth.requests
    return sorted(total, key=lambda key: (-total[key], key))


def _of(point: Point, key: ModelKey | None) -> Iterator[Growth]:
    models = point.models or {}
    if key is None:
        yield from models.values()
    elif key in models:
        yield models[key]


def _per_second(counted: list[tuple[Point, int]]) -> float | None:
    known = [(point.seconds, count) for point, count in counted if point.models is not None]
    seconds = sum(each for each, _ in known)
    return sum(count for _, count in known) / seconds if seconds > 0 else None
