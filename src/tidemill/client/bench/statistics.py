"""From samples to what is told: medians over the rounds, ratios within a round, intervals by bootstrap. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from tidemill.client.bench.plan import Level
from tidemill.client.bench.words import Tokens, Words
from tidemill.client.result import Result, percentile

DRAWS = 2000
SHARE = 0.95


class Sample(msgspec.Struct, frozen=True):
    """One side at one level in one round. Latencies are those of the requests answered well; None is unknown.

    `errors` counts the others by code: the server's own where it names one, else its status, else what broke.
    `lag_ms` is by how much the load generator itself was late with 99 of 100 requests of an open loop.
    """

    sent: int
    ok: int
    per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    errors: dict[str, int]
    goodput: float | None = None
    cpu_us: float | None = None
    rows_per_batch: float | None = None
    lag_ms: float | None = None
    words: Tokens | None = None


class Interval(msgspec.Struct, frozen=True):
    """A median over rounds, and where it lies with a probability of 95 in 100."""

    middle: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True):
    """One side at one level, over all rounds."""

    side: str
    load: str
    rounds: int
    sent: int
    ok: int
    errors: dict[str, int]
    per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    goodput: float | None
    cpu_us: float | None
    rows_per_batch: float | None
    lag_ms: float | None
    samples: list[Sample]
    words: Tokens | None = None


class Ratio(msgspec.Struct, frozen=True):
    """One side over the other at one level, round by round; None where one of them is unknown."""

    load: str
    rounds: int
    per_second: Interval | None
    p50_ms: Interval | None
    p99_ms: Interval | None
    cpu_us: Interval | None
    tokens_per_second: Interval | None = None
    ttft_p50_ms: Interval | None = None
    tpot_p50_ms: Interval | None = None


def sample(
    result: Result,
    codes: Counter[str],
    *,
    slo_ms: float | None = None,
    cpu_s: float | None = None,
    rows_per_batch: float | None = None,
    heard: Words | None = None,
) -> Sample:
    """What a run was. `codes` are the errors by name; what is missing in it is told by status. Of words (`heard`) an
    answer is well when it came whole."""
    ordered = sorted(result.ok_latencies_s if heard is None else heard.latencies_s)
    ok = result.ok if heard is None else len(ordered)
    tokens = None if heard is None else heard.tokens(result.wall_s)

    def at(percent: float) -> float | None:
        return percentile(ordered, percent) * 1e3 if ordered else None

    errors = Counter(codes) + Counter(result.errors)
    if result.unsent:
        errors["not sent: every connection was busy"] += result.unsent
    within = None
    if slo_ms is not None:
        kept = int(np.searchsorted(np.array(ordered), slo_ms / 1e3, side="right"))
        within = kept / result.wall_s if result.wall_s else 0.0
    return Sample(
        sent=result.sent,
        ok=ok,
        per_second=ok / result.wall_s if result.wall_s else 0.0,
        p50_ms=at(50),
        p90_ms=at(90),
        p99_ms=at(99),
        mean_ms=statistics.fmean(ordered) * 1e3 if ordered else None,
        errors=dict(errors),
        goodput=within if tokens is None else tokens.goodput,
        cpu_us=None if cpu_s is None or not result.answered else cpu_s / result.answered * 1e6,
        rows_per_batch=rows_per_batch,
        lag_ms=percentile(sorted(result.late_s), 99) * 1e3 if result.late_s else None,
        words=tokens,
    )


def summary(side: str, level: Level, samples: Sequence[Sample]) -> Summary:
    """Medians of the rounds' figures, sums of their counts."""
    errors: Counter[str] = Counter()
    for each in samples:
        errors.update(each.errors)

    def middle(name: str) -> float | None:
        return _median(getattr(each, name) for each in samples)

    return Summary(
        side=side,
        load=level.label,
        rounds=len(samples),
        sent=sum(each.sent for each in samples),
        ok=sum(each.ok for each in samples),
        errors=dict(errors),
        per_second=middle("per_second") or 0.0,
        samples=list(samples),
        words=_words([each.words for each in samples if each.words is not None]),
        **{
            name: middle(name)
            for name in ("p50_ms", "p90_ms", "p99_ms", "goodput", "cpu_us", "rows_per_batch", "lag_ms")
        },
    )


def _words(several: Sequence[Tokens]) -> Tokens | None:
    """Medians of the rounds' figures."""
    if not several:
        return None
    middles = {name: _median(getattr(each, name) for each in several) for name in Tokens.__struct_fields__}
    return Tokens(**{name: middles[name] for name in Tokens.__struct_fields__})  # type: ignore[arg-type]


def ratio(level: Level, mine: Sequence[Sample], theirs: Sequence[Sample], seed: int = 0) -> Ratio:
    """`mine` over `theirs`, of the rounds that both went through."""
    pairs = list(zip(mine, theirs, strict=False))

    def of(name: str) -> Interval | None:
        return _over([(getattr(one, name), getattr(other, name)) for one, other in pairs], seed)

    def of_words(name: str) -> Interval | None:
        both = [(one.words, other.words) for one, other in pairs]
        return _over([(getattr(one, name), getattr(other, name)) for one, other in both if one and other], seed)

    return Ratio(
        level.label, len(pairs), of("per_second"), of("p50_ms"), of("p99_ms"), of("cpu_us"),
        of_words("per_second"), of_words("ttft_p50_ms"), of_words("tpot_p50_ms"),
    )  # fmt: skip


def _over(both: Iterable[tuple[float | None, float | None]], seed: int) -> Interval | None:
    return bootstrap([one / other for one, other in both if one is not None and other], seed)


def bootstrap(values: Sequence[float], seed: int = 0, draws: int = DRAWS, share: float = SHARE) -> Interval | None:
    """The median of `values`, and the percentile interval of the medians of as many drawn from them with replacement
    (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). None for no values.

    A few rounds give a rough interval, and one round gives none but the value itself.
    """
    if not values:
        return None
    known = np.asarray(values, float)
    drawn = np.random.default_rng(seed).choice(known, (draws, known.size))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - share) / 2, (1 + share) / 2])
    return Interval(float(np.median(known)), float(low), float(high))


def _median(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None and not math.isnan(each)]
    return statistics.median(known) if known else None
