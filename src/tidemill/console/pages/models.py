"""The table of models, and the sheet that a row opens; runs in the console's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from tidemill.console import format as form
from tidemill.console.catalogue import TONES
from tidemill.console.charts import label
from tidemill.console.curl import call
from tidemill.console.pages.parts import box, column, copy_button, press, words
from tidemill.console.rates import Point, batch_rows
from tidemill.console.snapshot import Model, ModelKey, Overview
from tidemill.core.tensor import TensorSpec

COLUMNS = [
    column("name", "model", left=True),
    column("version", "v"),
    column("state", "state", left=True),
    column("engine", "engine", left=True, hidden="second first"),
    column("format", "format", left=True, hidden="third second first"),
    column("size", "size", hidden="third second first", text=True),
    column("max_batch", "batch max", hidden="second first", text=True),
    column("requests", "requests", text=True),
    column("failures", "failures", text=True),
    column("waiting", "waiting", hidden="first", text=True),
    column("batch", "batch mean", hidden="second first", text=True),
    column("p50", "p50", hidden="first", text=True),
    column("p99", "p99", hidden="first", text=True),
    column("price", "price", hidden="second first", text=True),
]
NAME_CELL = """<q-td :props="props"><button class="opens" type="button">{{ props.value }}</button></q-td>"""
STATE_CELL = """<q-td :props="props"><span :class="props.row.tone">● {{ props.value }}</span>
<div class="reason" :title="props.row.reason" v-if="props.row.reason">{{ props.row.reason }}</div></q-td>"""
FAILURES_CELL = """<q-td :props="props"><span :class="{bad: props.row.failures > 0}">{{ props.value }}</span></q-td>"""


def row(model: Model, recent: list[Point]) -> dict[str, Any]:
    """One line of the table: what is sorted by, and beside it what is read."""
    batch = batch_rows(recent, model.key)
    if batch is None and model.batches:
        batch = model.rows / model.batches
    return {
        "id": label(model.key),
        "name": model.name,
        "version": model.version,
        "state": model.state,
        "tone": TONES.get(model.state, "warn"),
        "reason": model.reason,
        "engine": model.engine,
        "format": model.format,
        "size": model.size_bytes,
        "size_text": form.size(model.size_bytes),
        "max_batch": model.max_batch if model.batched else 0,
        "max_batch_text": form.count(model.max_batch) if model.batched else "none",
        "requests": model.requests,
        "requests_text": form.count(model.requests),
        "failures": model.failed,
        "failures_text": form.count(model.failed),
        "waiting": model.waiting,
        "waiting_text": form.count(model.waiting),
        "batch": batch or 0,
        "batch_text": form.rate(batch),
        "p50": model.p50_s or 0,
        "p50_text": form.latency(model.p50_s),
        "p99": model.p99_s or 0,
        "p99_text": form.latency(model.p99_s),
        "price": model.price_nanos,
        "price_text": form.price(model.tariff),
    }


def ordered(models: tuple[Model, ...]) -> list[Model]:
    """What failed first, then by name and version."""
    return sorted(models, key=lambda model: (model.state != "FAILED", model.name, model.version))


class Models:
    """Built once a page, then told of every overview. `open_model` leads to the page of a model."""

    def __init__(self, open_model: Callable[[str], None]) -> None:
        self._open_model = open_model
        self._overview: Overview | None = None
        with box("card wide-card", "section"):
            with box("top"):
                words("Models", "title", "h2")
            self._empty = ui.element("div").classes("empty")
            with self._empty:
                words("no model is served: ", tag="span")
                words("tidemill serve PATH", tag="code")
            self._empty.set_visibility(False)
            with box("rows models") as self._rows:
                self._table = ui.table(columns=COLUMNS, rows=[], row_key="id").props("dense flat")
            self._rows.set_visibility(False)
        self._table.add_slot("body-cell-name", NAME_CELL)
        self._table.add_slot("body-cell-state", STATE_CELL)
        self._table.add_slot("body-cell-failures", FAILURES_CELL)
        self._table.on("rowClick", self._clicked, [[], ["name", "version"], None])
        self._sheet = ui.dialog()

    def show(self, overview: Overview | None, recent: list[Point]) -> None:
        """Write the models of `overview` down."""
        self._overview = overview
        models = ordered(overview.models) if overview else []
        self._empty.set_visibility(overview is not None and not models)
        self._rows.set_visibility(bool(models))
        self._table.rows = [row(model, recent) for model in models]

    def _clicked(self, event: events.GenericEventArguments) -> None:
        clicked = event.args[1]
        self._open((clicked["name"], clicked["version"]))

    def _open(self, key: ModelKey) -> None:
        found = [model for model in self._overview.models if model.key == key] if self._overview else []
        if not found or self._overview is None:
            return
        service = self._overview.service
        self._sheet.clear()
        with self._sheet, ui.card().classes("sheet").props("flat"):
            with box("top"):
                words(label(found[0].key), tag="h2")
                words(f"● {found[0].state}", TONES.get(found[0].state, "warn"))
                words("", "spring")
                press("Versions, labels, try it", lambda: self._leave(found[0].name))
            about(found[0], service.http_url, service.auth)
        self._sheet.open()

    def _leave(self, name: str) -> None:
        self._sheet.close()
        self._open_model(name)


def about(model: Model, http_url: str, auth: bool) -> None:
    """One version's facts, signature and call, where the caller stands."""
    with box("facts"):
        for what, value in facts(model):
            words(what)
            words(value)
    for title, specs in (("Inputs", model.inputs), ("Outputs", model.outputs)):
        if specs:
            words(title, tag="h3")
            _tensors(specs)
    if model.inputs:
        words("Call it", tag="h3")
        line = call(model, http_url, auth)
        with box(""):
            words(line, "call value", "pre")
            copy_button(line)


def facts(model: Model) -> list[tuple[str, str]]:
    """What the sheet says beside the signature; only what is there to say."""
    every = [
        ("reason", model.reason),
        ("engine", model.engine),
        ("format", model.format),
        ("size", form.size(model.size_bytes)),
        ("source", model.source),
        ("batches", batches(model)),
        ("price", model.tariff.words(form.money)),
        ("requests", form.count(model.requests)),
        ("failures", ", ".join(f"{form.count(count)} {code}" for code, count in sorted(model.failures.items()))),
        ("mean wait", form.latency(model.queue_s_sum / model.requests if model.requests else None)),
    ]
    return [(what, value) for what, value in every if value]


def batches(model: Model) -> str:
    """How its requests run together, as `tidemill show` says it; "" for one that does not serve."""
    if model.state != "AVAILABLE":
        return ""
    if model.engine == "ensemble":
        return "each stage on its own"
    if model.engine == "remote":
        return "those who answer do"
    if model.speaks is not None:
        return "every answer under way, step by step"
    if model.batched:
        return f"up to {form.count(model.max_batch)} rows together"
    return f"one request at a time: {model.singly}" if model.singly else "one request at a time"


def _tensors(specs: tuple[TensorSpec, ...]) -> None:
    with box("tensors"):
        for spec in specs:
            words(spec.name)
            words(spec.datatype)
            words(form.shape(spec.shape))
