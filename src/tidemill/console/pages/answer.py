"""What a model answered, as a person reads it, with the raw answer and the call; runs in the console's process."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nicegui import ui

from tidemill.console import answers, drawings
from tidemill.console import format as form
from tidemill.console.acts import Tried
from tidemill.console.answers import Answer
from tidemill.console.kinds import Kind
from tidemill.console.pages.parts import box, copy_button, words
from tidemill.console.pages.question import Given

RAW_MAX = 20_000
"""Characters of the raw answer that are written into the page."""
TABLE_MAX = 50


def draw(answer: Answer, given: Given) -> None:
    """Lay `answer` out where the caller stands."""
    match answer:
        case answers.Classes(rows):
            _bars(rows)
        case answers.Lines(rows):
            _lines(rows)
        case answers.Notes(rows):
            _picture(drawings.piano_roll(rows))
            _table(
                ("note", "from", "to", "strength"),
                [(name, _s(start), _s(end), f"{strength:.2f}") for _, name, start, end, strength in rows],
            )
        case answers.Stretches(rows):
            _picture(drawings.stretches(rows))
            _table(("from", "to", "score"), [(_s(start), _s(end), f"{score:.2f}") for start, end, score in rows])
        case answers.Forecast(rows):
            before = drawings.history(given.data.decode("utf-8", "replace")) if given.kind is Kind.TABLE else []
            ui.echart(drawings.forecast(rows, before)).classes("forecast")
            _table(("when", "value"), [(when, f"{value:g}") for when, value in rows])
        case answers.Vector(size, norm, first):
            _facts([("vector of", f"{form.count(size)} numbers"), ("its norm", f"{norm:.6g}")])
            words(f"{_values(first)}{' …' if size > len(first) else ''}", "values")
        case answers.Outputs(rows):
            for output in rows:
                _output(output)
        case answers.Words(text):
            words(text, "values")
        case answers.Nothing():
            words("The answer is an empty list: the model found nothing.", "soft")
        case answers.Other():
            words("The answer has no form that is drawn here; below it is as it came.", "soft")


def raw(tried: Tried) -> None:
    """The answer as it came, behind a fold."""
    with ui.element("details").classes("fold"):
        words("Raw answer", tag="summary")
        text = _pretty(tried.body)
        words(text[:RAW_MAX], "call value", "pre")
        if len(text) > RAW_MAX:
            words(f"and {form.count(len(text) - RAW_MAX)} characters more", "soft")


def call(line: str) -> None:
    """The same call from a shell, behind a fold."""
    with ui.element("details").classes("fold"):
        words("The same call with curl", tag="summary")
        with box(""):
            words(line, "call value", "pre")
            copy_button(line)


def _pretty(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    if len(text) > RAW_MAX:
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=1)
    except ValueError:
        return text


def _bars(rows: list[tuple[str, float]]) -> None:
    shares = all(0 <= score <= 1 for _, score in rows)
    most = 1.0 if shares else max((abs(score) for _, score in rows), default=1.0) or 1.0
    with box("bars"):
        for label, score in rows:
            words(label, "clip")
            with box("track"):
                ui.element("div").style(f"width: {max(0.0, score) / most:.2%}")
            words(f"{score:.1%}" if shares else f"{score:.4g}", "number")


def _lines(rows: list[tuple[str, float, answers.Box]]) -> None:
    with box("lines", "ol"):
        for text, score, _ in rows:
            with ui.element("li"):
                words(text, tag="span")
                words(f"{score:.0%}", "soft", "span")


def _picture(svg: str) -> None:
    with box("roll"):
        ui.html(svg, sanitize=False)


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with ui.element("details").classes("fold"):
        words(f"As a table of {form.count(len(rows))}", tag="summary")
        with ui.element("table").classes("plain"):
            with ui.element("tr"):
                for title in titles:
                    words(title, tag="th")
            for row in rows[:TABLE_MAX]:
                with ui.element("tr"):
                    for cell in row:
                        words(cell, tag="td")
        if len(rows) > TABLE_MAX:
            words(f"the first {TABLE_MAX}; the raw answer holds them all", "soft")


def _output(output: answers.Output) -> None:
    told = [("shape", form.shape(output.shape))]
    if output.least is not None and output.most is not None:
        told.append(("from … to", f"{output.least:g} … {output.most:g}"))
    if output.name:
        words(output.name, tag="h3")
    _facts(told)
    words(_values(output.first), "values")


def _facts(told: list[tuple[str, str]]) -> None:
    with box("facts"):
        for what, value in told:
            words(what)
            words(value)


def _values(values: Sequence[object]) -> str:
    return ", ".join(f"{value:.5g}" if isinstance(value, float) else str(value)[:80] for value in values)


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"
