"""What a compression's report holds: plain values that go to JSON and come back; used where a report is made or read.

A figure that could not be taken is None, and the report then says so; nothing is ever made up.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidemill.core.errors import RefusedModel
from tidemill.repository.lineage import Measured, Origin


class DataFacts(msgspec.Struct, frozen=True):
    """The rows: `fit` were learned from, `held` were kept apart, and every figure of quality is over those."""

    source: str
    sha256: str
    fit_rows: int
    held_rows: int
    notes: tuple[str, ...] = ()


class MetricFacts(msgspec.Struct, frozen=True):
    """`difference` is after minus before, paired by row. `kept` is after's share of before; `keep` what was asked for.

    `histogram` counts the rows of `held` by their value after, over evenly spaced `edges`.
    """

    name: str
    before: Measured
    after: Measured
    difference: Measured
    kept: float
    keep: float | None = None
    histogram: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def met(self) -> bool:
        return self.keep is None or self.kept >= self.keep


class Footprint(msgspec.Struct, frozen=True):
    """What one engine takes for a model, in a process of its own."""

    engine: str
    private_bytes_before: int | None = None
    private_bytes_after: int | None = None
    load_s_before: float | None = None
    load_s_after: float | None = None


class Speed(msgspec.Struct, frozen=True):
    """Median times of a call, both models timed in turns. `ratio` is after over before; its interval is over rounds.

    `base` is before's time as a share of before's in the first engine, taken in turns too: it makes engines comparable
    where medians of their own, taken while the machine was busy with others, would not be.
    """

    engine: str
    shape: str
    before_ms: float
    after_ms: float
    ratio: Measured
    base: float = 1.0


class LayerFacts(msgspec.Struct, frozen=True):
    """`bits` are those of a stored weight, all that belongs to it counted. Errors are shares of the output's energy."""

    name: str
    op: str
    method: str
    shape: tuple[int, ...]
    size_bytes_before: int
    size_bytes_after: int
    bits: float
    density: float = 1.0
    error_fit: float | None = None
    error_held: float | None = None
    damping: float = 0.0
    notes: tuple[str, ...] = ()


class LeftAlone(msgspec.Struct, frozen=True):
    name: str
    op: str
    reason: str


class Example(msgspec.Struct, frozen=True):
    """One held-out row: what it is, what the model answered before and after, and the metric of that row."""

    given: str
    before: str
    after: str
    score: float | None = None


class TargetFacts(msgspec.Struct, frozen=True):
    """`got` is None where it could not be measured; then the target is not met."""

    name: str
    wanted: float
    got: float | None

    @property
    def met(self) -> bool:
        return self.got is not None and self.got <= self.wanted


class Peer(msgspec.Struct, frozen=True):
    """Another model of the same run, for the picture of size against quality."""

    name: str
    size_bytes: int
    metric: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`name` and `version` are those of the package; `outcome` tells models of one run apart. `machine` is words and
    versions, `command` does it again, `recipe` is what was carried out with every option's value."""

    name: str
    version: int
    created_at: float
    tidemill: str
    machine: dict[str, str]
    command: str
    seed: int
    recipe: dict[str, Any]
    before: Origin
    after: Origin
    data: DataFacts
    metric: MetricFacts
    outcome: str = ""
    spent_s: float = 0.0
    rss_bytes_max: int | None = None
    footprints: tuple[Footprint, ...] = ()
    speeds: tuple[Speed, ...] = ()
    layers: tuple[LayerFacts, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    examples: tuple[Example, ...] = ()
    targets: tuple[TargetFacts, ...] = ()
    peers: tuple[Peer, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size_ratio(self) -> float:
        return self.after.size_bytes / self.before.size_bytes if self.before.size_bytes else 1.0

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(str(step["method"]) for step in self.recipe.get("steps", ()))

    @property
    def best_speed(self) -> Speed | None:
        """The comparison of each shape's best engines: the shape that gained most."""
        return min(best_speeds(self.speeds), key=lambda each: each.ratio.mean, default=None)

    @property
    def met(self) -> bool:
        """Whether everything that was asked for came true."""
        return self.metric.met and all(target.met for target in self.targets)


def best_speeds(speeds: tuple[Speed, ...]) -> list[Speed]:
    """For each shape, the fastest engine after over the fastest before: what a service that chooses its engine gains.

    The interval is that of the chosen engine's own ratio, scaled alike.
    """
    best = []
    for shape in dict.fromkeys(each.shape for each in speeds):
        there = [each for each in speeds if each.shape == shape]
        before = min(there, key=lambda each: each.base)
        after = min(there, key=lambda each: each.ratio.mean * each.base)
        scale = after.base / before.base
        ratio = Measured(after.ratio.mean * scale, after.ratio.low * scale, after.ratio.high * scale)
        best.append(Speed(after.engine, shape, before.before_ms, after.after_ms, ratio))
    return best


def encode(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def decode(body: bytes) -> Report:
    """Raises `RefusedModel` for what is no report."""
    try:
        return msgspec.json.decode(body, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedModel(f"this is no compression report: {error}") from error
