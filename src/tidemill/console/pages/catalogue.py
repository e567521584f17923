"""The catalogue: every model that the service knows of, served or not; runs in the console's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from tidemill.console import format as form
from tidemill.console.catalogue import TONES, Known, matching
from tidemill.console.pages.parts import box, column, say, words
from tidemill.console.snapshot import Compressed, Model

ROWS_MAX = 500
FILTER_MAX = 200
COLUMNS = [
    column("name", "model", left=True),
    column("kind", "reads", left=True),
    column("state", "state", left=True),
    column("versions", "versions", left=True, hidden="first"),
    column("labels", "labels", left=True, hidden="second first"),
    column("size", "size", hidden="first", text=True),
    column("engine", "engine", left=True, hidden="second first"),
    column("requests", "requests", hidden="first", text=True),
    column("price", "price", hidden="second first", text=True),
    column("origin", "compressed from", left=True, hidden="second first"),
]
NAME_CELL = """<q-td :props="props"><button class="opens" type="button">{{ props.value }}</button></q-td>"""
STATE_CELL = """<q-td :props="props"><span :class="props.row.tone">● {{ props.value }}</span>
<div class="reason" :title="props.row.reason" v-if="props.row.reason">{{ props.row.reason }}</div></q-td>"""
TYPED = "event => emit(event.target.value)"


def row(model: Known) -> dict[str, Any]:
    """One line of the table: what is sorted by, and beside it what is read."""
    shown, running = model.shown, model.shown.running
    requests = sum(version.running.requests for version in model.versions if version.running)
    return {
        "id": model.name,
        "name": model.name,
        "kind": model.kind or form.NOTHING,
        "state": model.state,
        "tone": TONES.get(model.state, "warn"),
        "reason": model.reason or ("unloaded by hand" if model.unloaded else ""),
        "versions": ", ".join(f"v{version.number}" for version in model.versions),
        "labels": ", ".join(f"{label} → v{version}" for label, version in model.labels),
        "size": shown.size_bytes,
        "size_text": form.size(shown.size_bytes) if shown.size_bytes else form.NOTHING,
        "engine": engine(running),
        "requests": requests,
        "requests_text": form.count(requests),
        "price": running.price_nanos if running else 0,
        "price_text": form.price(running.tariff) if running else form.NOTHING,
        "origin": origin(shown.origin),
    }


def engine(running: Model | None) -> str:
    """A dash for one that was refused before it was known which engine it wants."""
    return running.engine if running and running.engine not in ("", "unknown") else form.NOTHING


def origin(made: Compressed | None) -> str:
    """What a version was compressed from, and how."""
    return f"{made.of.name} v{made.of.version} by {' + '.join(made.methods)}" if made else ""


class Catalogue:
    """Built once a page, then told of every view. `open_model` gets the name of a row that was chosen."""

    def __init__(self, open_model: Callable[[str], None]) -> None:
        self._open_model = open_model
        self._wanted = ""
        self._models: list[Known] | None = None
        with box("card wide-card", "section") as self.card:
            with box("top"):
                words("Every model", "title", "h2")
                self._note = words("", "soft clip")
                field = ui.element("input").classes("filter").props('type=search aria-label="filter models"')
                field.props["placeholder"] = "filter: name, kind, state, label"
                field.props["maxlength"] = FILTER_MAX
            self._message = words("", "soft")
            self._empty = ui.element("div").classes("bare")
            with self._empty:
                words("the repository is empty: ", tag="span")
                words("tidemill demo", tag="code")
                words(" fetches models to begin with", tag="span")
            self._none = words("", "bare")
            self._waiting = words("asking …", "bare soft")
            with box("rows catalogue") as self._rows:
                self._table = ui.table(columns=COLUMNS, rows=[], row_key="id").props("dense flat")
        field.on("input", self._filter, js_handler=TYPED, throttle=0.15)
        self._table.add_slot("body-cell-name", NAME_CELL)
        self._table.add_slot("body-cell-state", STATE_CELL)
        self._table.on("rowClick", self._clicked, [[], ["name"], None])
        self._draw()

    def show(self, models: list[Known] | None, message: str) -> None:
        """Write `models` down, None while they are not known; `message` tells why some may be missing."""
        self._models = models
        say(self._message, f"Only what is loaded is shown: {message}" if message else "")
        self._draw()

    def _filter(self, event: events.GenericEventArguments) -> None:
        self._wanted = str(event.args)[:FILTER_MAX]
        self._draw()

    def _draw(self) -> None:
        models = self._models or []
        found = matching(models, self._wanted)
        shown = found[:ROWS_MAX]
        self._waiting.set_visibility(self._models is None)
        self._empty.set_visibility(self._models is not None and not models)
        self._none.set_visibility(bool(models) and not found)
        say(self._none, f"no model matches “{self._wanted.strip()}”")
        self._rows.set_visibility(bool(shown))
        say(self._note, _note(len(models), len(found), len(shown)))
        self._table.rows = [row(model) for model in shown]

    def _clicked(self, event: events.GenericEventArguments) -> None:
        self._open_model(str(event.args[1]["name"]))


def _note(all_of_them: int, found: int, shown: int) -> str:
    if shown < found:
        return f"the first {shown} of {form.count(found)}: filter for others"
    return f"{found} of {all_of_them}" if found < all_of_them else (form.count(found) if found else "")
