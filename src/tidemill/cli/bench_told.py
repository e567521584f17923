"""How `tidemill bench` tells what it measured: tables, a small plot, JSON. Pure, but for the printing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from tidemill.cli.common import print_json, print_table
from tidemill.client.bench import picture
from tidemill.client.bench.measure import Side
from tidemill.client.bench.meter import cost_per_1000
from tidemill.client.bench.plan import Plan
from tidemill.client.bench.statistics import Interval, Ratio, Summary, ratio, summary

ERRORS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Told:
    """All that a run gave. `charged`: units for a thousand requests, by side; `core_hour`: price of a core's hour."""

    sides: Sequence[Side]
    plan: Plan
    charged: Mapping[str, float | None]
    core_hour: float | None
    slo_ms: float | None
    interrupted: bool

    @property
    def summaries(self) -> list[Summary]:
        """Level by level, so that what is compared stands together."""
        return [
            summary(side.label, level, side.samples[level])
            for level in self.plan.levels
            for side in self.sides
            if side.samples.get(level)
        ]

    @property
    def ratios(self) -> list[Ratio]:
        """The first side over the second."""
        if len(self.sides) < 2:
            return []
        mine, theirs = self.sides
        return [
            ratio(level, mine.samples[level], theirs.samples[level], self.plan.seed)
            for level in self.plan.levels
            if mine.samples.get(level) and theirs.samples.get(level)
        ]


def as_json(told: Told) -> None:
    sides = [
        {
            "side": each.label,
            "door": each.where.door,
            "at": each.where.base,
            "model": each.where.model,
            "version": each.where.version,
            "cpu_from": each.meter.cpu_from,
            "charged_per_1000": told.charged.get(each.label),
        }
        for each in told.sides
    ]
    loads: list[dict[str, Any]] = []
    for each in told.summaries:
        plain: dict[str, Any] = msgspec.to_builtins(each)
        plain["cpu_cost_per_1000"] = cost_per_1000(each.cpu_us, told.core_hour)
        loads.append(plain)
    print_json(
        {
            "interrupted": told.interrupted,
            "slo_ms": told.slo_ms,
            "core_hour": told.core_hour,
            "rounds": told.plan.rounds,
            "seconds": told.plan.seconds,
            "seed": told.plan.seed,
            "sides": sides,
            "loads": loads,
            "ratios": msgspec.to_builtins(told.ratios),
        }
    )


def as_tables(told: Told) -> None:
    summaries, two = told.summaries, len(told.sides) > 1
    if not summaries:
        click.echo("nothing was measured yet", err=True)
        return
    columns = _columns(told, summaries)
    names = ["load", *(["side"] if two else []), *(name for name, _ in columns), "errors"]
    rows = [
        [each.load, *([each.side] if two else []), *(value(each) for _, value in columns), errors(each)]
        for each in summaries
    ]
    print_table(names, rows, right=[name for name, _ in columns])
    for line in notes(told):
        click.echo(line)
    if told.ratios:
        click.echo()
        first, second = (each.label for each in told.sides)
        click.echo(f"{first} over {second}: medians of the rounds' ratios, with their 95 % intervals")
        shown = {"answers/s": "per_second", "p50": "p50_ms", "p99": "p99_ms", "CPU": "cpu_us"}
        if any(each.tokens_per_second for each in told.ratios):
            shown = {"tokens/s": "tokens_per_second", "TTFT": "ttft_p50_ms", "TPOT": "tpot_p50_ms", "CPU": "cpu_us"}
        cells = [[each.load, *(interval(getattr(each, name)) for name in shown.values())] for each in told.ratios]
        print_table(("load", *shown), cells, right=list(shown))
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    lines = picture.terminal(summaries, plain=plain)
    click.echo("\n".join(["", *lines]) if lines else "", nl=bool(lines))


LATENCIES: list[tuple[str, Any]] = [
    ("p50 ms", lambda each: number(each.p50_ms)),
    ("p90 ms", lambda each: number(each.p90_ms)),
    ("p99 ms", lambda each: number(each.p99_ms)),
]


def _of_words(name: str) -> Any:
    return lambda each: number(None if each.words is None else getattr(each.words, name))


WORDS: list[tuple[str, Any]] = [
    ("tokens/s", _of_words("per_second")),
    ("TTFT p50 ms", _of_words("ttft_p50_ms")),
    ("p99", _of_words("ttft_p99_ms")),
    ("TPOT p50 ms", _of_words("tpot_p50_ms")),
    ("p99 ", _of_words("tpot_p99_ms")),
]


def _columns(told: Told, summaries: Sequence[Summary]) -> list[tuple[str, Any]]:
    """Name and cell of each column of figures; what nobody knows has none."""
    columns: list[tuple[str, Any]] = [
        ("answers/s", lambda each: number(each.per_second)),
        *(WORDS if any(each.words for each in summaries) else LATENCIES),
    ]
    if any(each.goodput is not None for each in summaries):
        columns.append(("goodput/s", lambda each: number(each.goodput)))
    if any(each.rows_per_batch is not None for each in summaries):
        columns.append(("rows/batch", lambda each: number(each.rows_per_batch)))
    if any(each.cpu_us is not None for each in summaries):
        columns.append(("CPU µs", lambda each: number(each.cpu_us)))
        if told.core_hour is not None:
            columns.append(("CPU cost/1000", lambda each: number(cost_per_1000(each.cpu_us, told.core_hour))))
    return columns


def notes(told: Told) -> list[str]:
    """What a reader must know to read the table rightly."""
    lines = []
    if told.slo_ms is not None:
        lines.append(f"goodput: good answers within {told.slo_ms:g} ms")
    for slo in {side.slo for side in told.sides if side.slo}:
        bounds = [("first token", slo.ttft_ms), ("each further one", slo.tpot_ms)]
        words = [f"{what} within {most:g} ms" for what, most in bounds if most is not None]
        lines.append(f"goodput: whole answers a second with the {', '.join(words)}")
    for side in told.sides:
        charged = told.charged.get(side.label)
        if charged is not None:
            lines.append(f"{side.label}: charged {charged:g} units per 1,000 requests")
        if not side.meter.cpu_from:
            lines.append(f"{side.label}: its CPU time is unknown: no process of this machine, and no /metrics")
        elif side.meter.cpu_from == "metrics":
            lines.append(f"{side.label}: CPU time as its /metrics tells, for one process")
    lags = [each for each in told.summaries if each.lag_ms is not None and each.p50_ms is not None]
    worst = max(lags, key=lambda each: each.lag_ms or 0.0, default=None)
    if worst is not None and (worst.lag_ms or 0.0) > 0.5 * (worst.p50_ms or 0.0):
        lines.append(
            f"{worst.load}: requests were sent up to {number(worst.lag_ms)} ms (p99) after they were due, and that is"
            " in the latencies: the load generator was late, or every connection was busy"
        )
    return lines


def errors(each: Summary) -> str:
    """The commonest by code, "" for none."""
    told = sorted(each.errors.items(), key=lambda pair: -pair[1])
    more = f", {len(told) - ERRORS_SHOWN} more" if len(told) > ERRORS_SHOWN else ""
    return ", ".join(f"{count} {code}" for code, count in told[:ERRORS_SHOWN]) + more


def number(value: float | None) -> str:
    """Three figures that mean something; "" for what is unknown."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def interval(value: Interval | None) -> str:
    return "" if value is None else f"{value.middle:.2f} [{value.low:.2f}, {value.high:.2f}]"
