"""The report as one HTML page that needs nothing beside it: no script, no other file, no other host. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib import resources

from tidemill.compress.report import html, sections, words
from tidemill.compress.report.facts import Footprint, Report


def page(report: Report) -> str:
    """The whole document."""
    style = resources.files("tidemill.compress.report").joinpath("page.css").read_text("utf-8")
    title = f"{report.name} {report.version}: compression report"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>\n"
        + "\n".join(_parts(report))
        + "\n</main></body></html>\n"
    )


def _parts(report: Report) -> Iterator[str]:
    yield _head(report)
    yield _tiles(report)
    if report.notes:
        yield html.section("To be known", html.items(report.notes))
    if report.speeds or report.footprints:
        yield _beside(sections.speed(report.speeds), sections.footprint(report))
    yield _beside(sections.quality(report), sections.peers(report))
    if report.layers:
        yield sections.layers(report.layers)
    if report.examples:
        yield sections.answers(report)
    if report.left_alone:
        yield sections.left_alone(report)
    yield sections.lineage(report)


def _beside(*parts: str) -> str:
    there = [part for part in parts if part]
    return f'<div class="pair">{"".join(there)}</div>' if len(there) > 1 else "".join(there)


def _head(report: Report) -> str:
    metric, best = report.metric, report.best_speed
    faster = ""
    if best and best.ratio.mean < 0.98:
        faster = f", answers {words.times(best.ratio.mean)} as fast ({escape(best.shape)})"
    elif best:
        faster = f", answers no faster ({escape(best.shape)}: {best.ratio.mean:.2f} of the time)"
    name = f"<b>{escape(report.before.name)}</b>"
    smaller = report.size_ratio < 0.995
    shrunk = f"made {name} {words.share(report.size_ratio)} of its size" if smaller else f"left {name} at its size"
    lead = (
        f"{escape(' + '.join(report.methods))} {shrunk}{faster}, and keeps {words.kept(metric.kept)} of its"
        f" {escape(metric.name)} on {words.count(report.data.held_rows)} rows that it never learned from."
    )
    checks = []
    if metric.keep is not None:
        checks.append((f"keeps {words.kept(metric.kept)}, asked were {words.kept(metric.keep)}", metric.met))
    for target in report.targets:
        said = f"{target.name} {words.share(target.got)}, at most {words.share(target.wanted)} asked"
        checks.append((said, target.met))
    verdicts = " ".join(
        f'<span class="verdict {"good" if met else "bad"}">{"✓" if met else "✗ refused:"} {escape(said)}</span>'
        for said, met in checks
    )
    outcome = f" · {escape(report.outcome)}" if report.outcome else ""
    return (
        f"<header><h1>{escape(report.name)} <small>version {report.version}{outcome}</small></h1>"
        f'<p class="lead">{lead}</p>{verdicts}</header>'
    )


def _tiles(report: Report) -> str:
    metric, best = report.metric, report.best_speed
    after, before = report.after.size_bytes, report.before.size_bytes
    quickest = "not measured"
    if best:
        was, now = (words.time(value / 1000) for value in (best.before_ms, best.after_ms))
        quickest = f"{best.shape}: {was} → {now}, {best.engine}"
    interval = f"{words.metric(metric.after.low)} to {words.metric(metric.after.high)}"
    tiles = [
        ("size on disk", words.size(after), f"{words.share(report.size_ratio)} of {words.size(before)}"),
        ("private memory", *_least(report.footprints, "private_bytes", words.size)),
        ("load time", *_least(report.footprints, "load_s", words.time)),
        ("best time", words.times(best.ratio.mean) if best else words.NOTHING, quickest),
        (metric.name, words.metric(metric.after.mean), f"{interval}; was {words.metric(metric.before.mean)}"),
    ]
    told = (
        f'<div class="tile"><div class="name">{escape(name)}</div><div class="figure">{escape(figure)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
        for name, figure, note in tiles
    )
    return f'<div class="tiles">{"".join(told)}</div>'


def _least(footprints: Sequence[Footprint], what: str, form: Callable[[float | None], str]) -> tuple[str, str]:
    """(figure, note) of the engine that takes least after."""
    known = [each for each in footprints if getattr(each, f"{what}_after") is not None]
    if not known:
        return words.NOTHING, "not measured"
    best = min(known, key=lambda each: float(getattr(each, f"{what}_after")))
    was = getattr(best, f"{what}_before")
    return form(getattr(best, f"{what}_after")), best.engine if was is None else f"was {form(was)}, {best.engine}"
