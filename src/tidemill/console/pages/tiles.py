"""The six figures that are read first; runs in the console's process."""

from __future__ import annotations

from tidemill.console import format as form
from tidemill.console.charts import label
from tidemill.console.pages.parts import box, say, tint, words
from tidemill.console.rates import History, batch_rows, failures_s, requests_s
from tidemill.console.snapshot import Model, Overview

NAMES = ("requests / s", "failures / s", "in flight", "p99 latency", "mean batch", "booked")
LONG = 9
"""More characters than this are set smaller."""


class Tiles:
    """Built once a page, then told of every overview."""

    def __init__(self) -> None:
        self._figures = []
        with box("tiles"):
            for name in NAMES:
                with box("tile"):
                    words(name, "name")
                    self._figures.append((words(form.NOTHING, "figure"), words("", "note")))

    def show(self, overview: Overview | None, history: History) -> None:
        """Write the figures down."""
        told = figures(overview, history) if overview else [(form.NOTHING, "", "")] * len(NAMES)
        for (figure, note), (text, tone, words_below) in zip(self._figures, told, strict=True):
            say(figure, text)
            tint(figure, tone)
            figure.classes(**{"add" if len(text) > LONG else "remove": "long"})
            say(note, words_below)


def figures(overview: Overview, history: History) -> list[tuple[str, str, str]]:
    """(figure, tone, note) of each tile, in the order of `NAMES`."""
    recent = history.recent()
    service, models = overview.service, overview.models
    failing = failures_s(recent)
    slow = max((model for model in models if model.p99_s is not None), key=_p99_s, default=None)
    failed, waiting = sum(model.failed for model in models), sum(model.waiting for model in models)
    return [
        (form.rate(requests_s(recent)), "", f"{form.count(sum(model.requests for model in models))} since the start"),
        (form.rate(failing), "bad" if failing else "", f"{form.count(failed)} since the start"),
        (
            form.count(service.in_flight),
            "",
            f"{form.count(waiting)} wait · {form.count(service.connections)} connections",
        ),
        (form.latency(slow.p99_s if slow else None), "", f"the slowest: {label(slow.key)}" if slow else ""),
        (form.rate(batch_rows(recent)), "", "rows"),
        (
            form.money(overview.usage.nanos) if service.charging else "off",
            "",
            f"{form.count(overview.usage.calls)} calls" if service.charging else "nothing is booked",
        ),
    ]


def _p99_s(model: Model) -> float:
    return model.p99_s or 0.0
