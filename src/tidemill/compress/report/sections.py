"""The report's sections below its head, each from the facts alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from tidemill.compress.report import html, svg, words
from tidemill.compress.report.facts import LayerFacts, Report, Speed, best_speeds
from tidemill.compress.report.yaml_text import yaml_text

LAYERS_OPEN_MAX = 24
ALTERNATED = (
    "Medians; both models are timed in turns in the same minutes, so that neighbours on the machine hit both."
    " The last number is after over before."
)
LOST = "Error is the lost share of a layer's output energy, on rows it did not learn from and on those it did."


def speed(speeds: tuple[Speed, ...]) -> str:
    if not speeds:
        return html.section("Time of one call", '<p class="soft">It was not measured.</p>')
    parts = []
    for best in best_speeds(speeds):
        there = [each for each in speeds if each.shape == best.shape]
        largest = max(max(each.before_ms, each.after_ms) for each in there)
        gained = f"best against best: {words.times(best.ratio.mean)} as fast" if len(there) > 1 else ""
        parts.append(html.group(best.shape, gained))
        for each in there:
            ratio = each.ratio
            hint = f"ratio {ratio.low:.2f} to {ratio.high:.2f}"
            parts.append(html.pair(each.engine, each.before_ms, each.after_ms, largest, _ms, f"{ratio.mean:.2f}", hint))
    return html.section("Time of one call", html.BOTH, html.bars(parts), note=ALTERNATED)


def _ms(value: float | None) -> str:
    return words.time(None if value is None else value / 1000)


def footprint(report: Report) -> str:
    before, after = report.before.size_bytes, report.after.size_bytes
    parts = [html.group("File"), html.pair("on disk", before, after, max(before, after), words.size)]
    memory = [(each.engine, each.private_bytes_before, each.private_bytes_after) for each in report.footprints]
    load = [(each.engine, each.load_s_before, each.load_s_after) for each in report.footprints]
    for title, rows, form in (("Private memory", memory, words.size), ("Time to load", load, words.time)):
        values = [value for row in rows for value in row[1:] if value is not None]
        if values:
            parts.append(html.group(title))
            parts += [html.pair(name, was, now, max(values), form) for name, was, now in rows]
    note = "Memory is what a process of its own takes beside what it shares with others."
    return html.section("Size, memory, load", html.BOTH, html.bars(parts), note=note)


def quality(report: Report) -> str:
    metric = report.metric
    change = metric.difference
    sure = change.low > 0 or change.high < 0
    told = (
        f"{escape(metric.name)} went from {words.metric(metric.before.mean)} to"
        f" <b>{words.metric(metric.after.mean)}</b>: {words.signed(change.mean)}, 95 % interval"
        f" {words.signed(change.low)} to {words.signed(change.high)}, paired by row."
    )
    if not sure:
        told += " The interval holds zero: on this data the two cannot be told apart."
    if not metric.histogram:
        return html.section("Quality", f"<p>{told}</p>")
    drawn = svg.histogram(metric.histogram, metric.edges, metric.after)
    seen = '<p class="soft small">Held-out rows by the metric after compression:</p>'
    return html.section("Quality", f"<p>{told}</p>", seen, f'<div class="drawing">{drawn}</div>')


def peers(report: Report) -> str:
    """ "" where the run gave one model."""
    if len(report.peers) < 2:
        return ""
    note = "Size on disk against the metric; the filled point is this model."
    return html.section("Models of this run", svg.front(report.peers, report.outcome or report.name), note=note)


def layers(rows: Sequence[LayerFacts]) -> str:
    marks = html.legend(
        ("l-is round", "error, held out"), ("l-ring", "error, learned from"), ("l-is", "bytes left of before")
    )
    numbers = ("bits", "not zero", "before", "after", "error, learned", "error, held out")
    columns: list[html.Cell] = ["layer", "operator", ("shape", "n"), "method", *((each, "n") for each in numbers)]
    cells = [_layer(row) for row in rows]
    if any(row.notes for row in rows):
        columns.append("notes")
        cells = [[*cell, ("; ".join(row.notes), "long")] for cell, row in zip(cells, rows, strict=True)]
    return html.section(
        f"{words.count(len(rows))} layers" if len(rows) > 1 else "1 layer",
        marks,
        f'<div class="wide">{svg.layers(rows)}</div>',
        html.folded("as a table", html.table(columns, cells), len(rows) <= LAYERS_OPEN_MAX),
        note=f"{LOST} Point at a column for its name.",
    )


def _layer(row: LayerFacts) -> list[html.Cell]:
    return [
        (row.name, "name"),
        row.op,
        ("×".join(map(str, row.shape)), "n"),
        row.method,
        (words.bits(row.bits), "n"),
        (words.share(row.density), "n"),
        (words.size(row.size_bytes_before), "n"),
        (words.size(row.size_bytes_after), "n"),
        (words.error(row.error_fit), "n"),
        (words.error(row.error_held), "n"),
    ]


def answers(report: Report) -> str:
    columns: list[html.Cell] = ["given", "before", "after", (report.metric.name, "n")]
    rows: list[list[html.Cell]] = [
        [(each.given, "long"), (each.before, "long"), (each.after, "long"), (words.metric(each.score), "n")]
        for each in report.examples
    ]
    note = "Held-out rows, those that lost most first: what the model answered before and after."
    return html.section("Answers", html.table(columns, rows), note=note)


def left_alone(report: Report) -> str:
    rows: list[list[html.Cell]] = [[(each.name, "name"), each.op, (each.reason, "long")] for each in report.left_alone]
    return html.section(
        f"{words.count(len(rows))} left as {'they were' if len(rows) > 1 else 'it was'}",
        html.table(["node", "operator", "why"], rows),
    )


def lineage(report: Report) -> str:
    made = datetime.fromtimestamp(report.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    memory = f", {words.size(report.rss_bytes_max)} of memory at most" if report.rss_bytes_max else ""
    before, data = report.before, report.data
    source = f" ({before.source})" if before.source else ""
    facts = [
        ("made", f"{made} by tidemill {report.tidemill} in {words.time(report.spent_s)}{memory}"),
        ("from", f"{before.name} version {before.version}{source}, SHA-256 {before.sha256}"),
        ("gave", f"SHA-256 {report.after.sha256}"),
        (
            "data",
            f"{data.source}, {words.count(data.fit_rows)} rows to learn from, {words.count(data.held_rows)} held out,"
            f" SHA-256 {data.sha256}",
        ),
        *(("", note) for note in data.notes),
        ("seed", str(report.seed)),
        *report.machine.items(),
    ]
    listed = "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in facts)
    return html.section(
        "Where it comes from",
        f'<dl class="facts">{listed}</dl>',
        f"<pre>{escape(report.command)}</pre>",
        html.folded("the recipe, with every option", f"<pre>{escape(yaml_text(report.recipe))}</pre>"),
    )
