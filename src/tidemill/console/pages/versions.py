"""A model's versions and labels, and the form that moves a label; runs in the console's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from tidemill.console import format as form
from tidemill.console.acts import Acts
from tidemill.console.catalogue import TONES, Known, Version
from tidemill.console.pages.catalogue import STATE_CELL, engine, origin
from tidemill.console.pages.parts import box, choices, column, say, tint, words

LABEL_MAX = 128
COLUMNS = [
    column("number", "version"),
    column("state", "state", left=True),
    column("labels", "labels", left=True),
    column("size", "size", hidden="first", text=True),
    column("engine", "engine", left=True, hidden="first"),
    column("requests", "requests", text=True),
    column("failures", "failures", left=True),
    column("p50", "p50", hidden="first", text=True),
    column("p99", "p99", hidden="first", text=True),
    column("origin", "compressed from", left=True, hidden="second first"),
]
SEND = """event => {
  event.preventDefault();
  const form = event.target;
  emit(form.querySelector('input').value.trim(), form.querySelector('select').value);
}"""


def row(version: Version) -> dict[str, Any]:
    """One line of the table: what is sorted by, and beside it what is read."""
    running = version.running
    return {
        "number": version.number,
        "state": version.state,
        "tone": TONES.get(version.state, "warn"),
        "reason": version.reason,
        "labels": ", ".join(version.labels) or form.NOTHING,
        "size": version.size_bytes,
        "size_text": form.size(version.size_bytes) if version.size_bytes else form.NOTHING,
        "engine": engine(running),
        "requests": running.requests if running else 0,
        "requests_text": form.count(running.requests) if running else form.NOTHING,
        "failures": failures(running.failures) if running else form.NOTHING,
        "p50": (running.p50_s if running else None) or 0,
        "p50_text": form.latency(running.p50_s if running else None),
        "p99": (running.p99_s if running else None) or 0,
        "p99_text": form.latency(running.p99_s if running else None),
        "origin": origin(version.origin),
    }


def failures(counted: dict[str, int]) -> str:
    """How many of each code; none is "0"."""
    return ", ".join(f"{form.count(count)} {code}" for code, count in sorted(counted.items()) if count) or "0"


class Versions:
    """Built once a page, then told of the model that is shown."""

    def __init__(self, acts: Callable[[], Acts], changed: Callable[[], None]) -> None:
        self._acts, self._changed = acts, changed
        self._model: Known | None = None
        self._offered: tuple[str, list[int]] | None = None
        with box("rows versions"):
            self._table = ui.table(columns=COLUMNS, rows=[], row_key="number").props("dense flat")
        self._table.add_slot("body-cell-state", STATE_CELL)
        self._policy = words("", "soft")
        with ui.element("form").classes("labels") as self._form:
            words("Let label", tag="span")
            field = ui.element("input").props('type=text required autocomplete=off aria-label="label"')
            field.props["placeholder"] = "stable"
            field.props["maxlength"] = LABEL_MAX
            words("stand for version", tag="span")
            self._select = ui.element("select").classes("pick").props('aria-label="version of the label"')
            with ui.element("button").classes("act").props("type=submit"):
                words("Set", tag="span")
        self._message = words("", "message").props("role=status")
        self._message.set_visibility(False)
        self._form.on("submit", self._set, js_handler=SEND)

    def show(self, model: Known) -> None:
        """Write `model` down."""
        if self._model is None or self._model.name != model.name:
            self._say("", "")
        self._model = model
        self._table.rows = [row(version) for version in model.versions]
        say(self._policy, f"policy: {model.policy}" if model.policy else "")
        numbers = [version.number for version in model.versions]
        if self._offered != (model.name, numbers):
            self._offered = (model.name, numbers)
            choices(self._select, [(str(number), f"v{number}") for number in numbers], str(model.shown.number))

    async def _set(self, event: events.GenericEventArguments) -> None:
        label, number = (str(each) for each in event.args)
        model = self._model
        if model is None or not label or not number.isdecimal():
            return
        why = await self._acts().label(model.name, label[:LABEL_MAX], int(number))
        self._say(why or f"{label} stands for version {number}.", "bad" if why else "fine")
        self._changed()

    def _say(self, text: str, tone: str) -> None:
        say(self._message, text)
        tint(self._message, tone)
        self._message.set_visibility(bool(text))
