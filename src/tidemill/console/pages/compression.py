"""What compression made: each model's origin, loss, size, speed-up and report; runs in the console's process."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from nicegui import events, ui

from tidemill.console import format as form
from tidemill.console.api import View
from tidemill.console.pages.parts import box, column, say, words
from tidemill.console.snapshot import Compressed

Fetch = Callable[[str, int], Awaitable[tuple[str, str]]]
"""(name, version) -> the report as HTML and "", or "" and why there is none."""

COLUMNS = [
    column("name", "model", left=True),
    column("version", "v"),
    column("of", "made from", left=True),
    column("methods", "by", left=True),
    column("size", "size", text=True),
    column("ratio", "of the original", text=True, hidden="first"),
    column("faster", "as fast", text=True),
    column("metric", "metric", left=True, hidden="second first"),
    column("after", "after", text=True, hidden="first"),
    column("loss", "change, 95 % interval", text=True, hidden="second first"),
    column("kept", "kept", text=True),
    column("made", "made", text=True, hidden="third second first"),
]
NAME_CELL = """<q-td :props="props"><button class="opens" type="button">{{ props.value }}</button></q-td>"""
FASTER_CELL = """<q-td :props="props"><span :class="props.row.tone" :title="props.row.faster_note">
{{ props.value }}</span></q-td>"""
KEPT_CELL = """<q-td :props="props"><span :class="{bad: !props.row.held}" :title="props.row.kept_note">
{{ props.value }}</span></q-td>"""


def row(model: Compressed) -> dict[str, Any]:
    """One line of the table: what is sorted by, and beside it what is read."""
    loss, speed = model.loss, model.best_speed
    faster = 1 / speed.ratio if speed and speed.ratio > 0 else 0.0
    ratio = model.size_ratio
    return {
        "id": f"{model.name}@{model.version}",
        "name": model.name,
        "version": model.version,
        "of": f"{model.of.name}@{model.of.version}",
        "methods": " + ".join(model.methods) + (f" ({model.outcome})" if model.outcome else ""),
        "size": model.size_bytes,
        "size_text": form.size(model.size_bytes),
        "ratio": ratio or 0,
        "ratio_text": form.NOTHING if ratio is None else f"{ratio:.1%}",
        "faster": faster,
        "tone": "good" if faster > 1.02 else "bad" if 0 < faster < 0.98 else "",
        "faster_text": f"{faster:.1f}×" if faster else form.NOTHING,
        "faster_note": f"{speed.shape} on {speed.engine}" if speed else "not measured",
        "metric": loss.metric,
        "after": loss.after.mean,
        "after_text": f"{loss.after.mean:.4f}",
        "loss": loss.difference.mean,
        "loss_text": f"{loss.difference.mean:+.4f} ({loss.difference.low:+.4f} to {loss.difference.high:+.4f})",
        "kept": loss.kept,
        "kept_text": f"{loss.kept:.2%}",
        "kept_note": "" if loss.keep is None else f"asked were {loss.keep:.2%}",
        "held": loss.keep is None or loss.kept >= loss.keep,
        "made": model.created_at,
        "made_text": datetime.fromtimestamp(model.created_at, UTC).strftime("%Y-%m-%d"),
        "report": model.report,
    }


class Compression:
    """Built once a page, then told of every view."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._shown: tuple[Compressed, ...] | None = None
        with box("card wide-card", "section"):
            with box("top"):
                words("Compressed models", "title", "h2")
                self._message = words("", "soft clip")
            self._empty = ui.element("div").classes("nothing")
            with self._empty:
                words("nothing was compressed yet: ", tag="span")
                words("tidemill compress MODEL --method int8 --data FILE -o NAME", tag="code")
            with box("rows lineage") as self._rows:
                self._table = ui.table(columns=COLUMNS, rows=[], row_key="id").props("dense flat")
        self._table.add_slot("body-cell-name", NAME_CELL)
        self._table.add_slot("body-cell-faster", FASTER_CELL)
        self._table.add_slot("body-cell-kept", KEPT_CELL)
        self._table.on("rowClick", self._clicked, [[], ["name", "version", "report"], None])
        self._paper = ui.dialog()

    def show(self, view: View) -> None:
        """Write the compressed models of `view` down."""
        say(self._message, view.lineage_message)
        if view.lineage == self._shown:
            return
        self._shown = view.lineage
        self._empty.set_visibility(not view.lineage)
        self._rows.set_visibility(bool(view.lineage))
        newest = sorted(view.lineage, key=lambda model: (-model.created_at, model.name))
        self._table.rows = [row(model) for model in newest]

    async def _clicked(self, event: events.GenericEventArguments) -> None:
        clicked = event.args[1]
        name, version = str(clicked["name"]), int(clicked["version"])
        body, why = await self._fetch(name, version)
        self._paper.clear()
        with self._paper, ui.card().classes("paper").props("flat"):
            with box("top"):
                words(f"{name} version {version}", tag="h2")
                words("", "spring")
                close = ui.element("button").classes("copy").props("type=button")
                with close:
                    ui.html("close", sanitize=False, tag="span")
                close.on("click", self._paper.close)
            if why:
                words(why, "banner bad")
            else:
                # Whoever may write into the repository writes this page: it stands in a frame that runs nothing.
                ui.html(
                    f'<iframe sandbox="" title="report" srcdoc="{html.escape(body)}"></iframe>', sanitize=False
                ).style("flex: 1; display: flex; width: 100%; min-height: 0")
        self._paper.open()
