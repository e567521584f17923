"""The three charts and the choice of a model for two of them; runs in the console's process."""

from __future__ import annotations

from typing import Any

from nicegui import events, ui

from tidemill.console import charts
from tidemill.console.pages.parts import box, say, words
from tidemill.console.rates import History, busiest
from tidemill.console.snapshot import ModelKey, Overview

BUSIEST = ""
CHOSEN = "event => emit(event.target.value)"


class Curves:
    """Built once a page, then told of every overview."""

    def __init__(self) -> None:
        self._chosen = BUSIEST
        self._offered: list[str] = []
        self._shown: tuple[Overview | None, History, float] | None = None
        with box("charts"):
            with box("card", "section"):
                with box("top"):
                    words("Requests per second", "title", "h2")
                self._traffic = ui.echart({})
            with box("card", "section"):
                with box("top"):
                    words("Latency", "title", "h2")
                    self._pick = ui.element("select").classes("pick").props('aria-label="model of the charts"')
                self._latency = ui.echart({})
            with box("card", "section"):
                with box("top"):
                    words("Batch size", "title", "h2")
                    self._of = words("", "soft clip")
                self._batches = ui.echart({})
        self._pick.on("change", self._choose, js_handler=CHOSEN)

    def show(self, overview: Overview | None, history: History, now: float) -> None:
        """Draw the history up to `now` (Unix time)."""
        self._shown = (overview, history, now)
        points = list(history.points)
        known = {charts.label(model.key): model.key for model in overview.models} if overview else {}
        top = next(iter(busiest(points)), next(iter(known.values()), None))
        key = known.get(self._chosen, top)
        self._offer(sorted(known), top)
        say(self._of, _batches_of(overview, key))
        _draw(self._traffic, charts.traffic(points, now))
        _draw(self._latency, charts.latency(points, now, key))
        _draw(self._batches, charts.batches(points, now, key))

    def _offer(self, names: list[str], top: ModelKey | None) -> None:
        offered = [f"busiest: {charts.label(top)}" if top else "busiest", *names]
        if offered == self._offered:
            return
        self._offered = offered
        self._pick.clear()
        with self._pick:
            for value, text in zip([BUSIEST, *names], offered, strict=True):
                option = words(text, tag="option")
                option.props["value"] = value
                if value == self._chosen:
                    option.props["selected"] = True

    def _choose(self, event: events.GenericEventArguments) -> None:
        self._chosen = str(event.args)
        if self._shown:
            self.show(*self._shown)


def _batches_of(overview: Overview | None, key: ModelKey | None) -> str:
    for model in overview.models if overview else ():
        if model.key == key:
            return charts.label(key) if model.batched else f"{charts.label(key)}: no batches"
    return ""


def _draw(chart: ui.echart, options: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()
