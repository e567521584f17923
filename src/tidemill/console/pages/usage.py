"""The table of usage by tenant and model; runs in the console's process."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tidemill.console import format as form
from tidemill.console.api import View
from tidemill.console.pages.parts import box, say, words
from tidemill.console.snapshot import UsageRow

ROWS_MAX = 200
COLUMNS = [
    {"name": name, "label": name, "field": name, "sortable": True, "align": align, "classes": hidden,
     "headerClasses": hidden}
    | ({":format": f"(value, row) => row['{name}_text']"} if align == "right" else {})
    for name, align, hidden in (
        ("tenant", "left", ""),
        ("key", "left", "first"),
        ("model", "left", ""),
        ("calls", "right", ""),
        ("tokens in", "right", "first"),
        ("tokens out", "right", "first"),
        ("booked", "right", ""),
    )
]  # fmt: skip


def rows(usage: tuple[UsageRow, ...]) -> list[dict[str, Any]]:
    """The greatest first, `ROWS_MAX` at most."""
    ranked = sorted(usage, key=lambda each: (-each.nanos, -each.calls, each.tenant, each.key, each.model, each.version))
    return [
        {
            "id": f"{index}",
            "tenant": each.tenant,
            "key": each.key,
            "model": f"{each.model} v{each.version}",
            "calls": each.calls,
            "calls_text": form.count(each.calls),
            "tokens in": each.prompt_tokens,
            "tokens in_text": _tokens(each.prompt_tokens),
            "tokens out": each.completion_tokens,
            "tokens out_text": _tokens(each.completion_tokens),
            "booked": each.nanos,
            "booked_text": form.money(each.nanos),
        }
        for index, each in enumerate(ranked[:ROWS_MAX])
    ]


def _tokens(count: int) -> str:
    return form.count(count) if count else form.NOTHING


class Usage:
    """Built once a page, then told of every view."""

    def __init__(self) -> None:
        with box("card wide-card", "section"):
            with box("top"):
                words("Usage", "title", "h2")
                self._note = words("", "soft")
            with box("rows") as self._rows:
                self._table = ui.table(columns=COLUMNS, rows=[], row_key="id").props("dense flat")

    def show(self, view: View) -> None:
        """Write the usage of `view` down."""
        say(self._note, note(view))
        self._rows.set_visibility(bool(view.usage))
        self._table.rows = rows(view.usage)


def note(view: View) -> str:
    """Why the table is empty or short; nothing when it is neither."""
    if view.usage_message:
        return f"cannot be read: {view.usage_message}"
    if view.overview and not view.overview.service.charging:
        return "charging is off: nothing is booked"
    if not view.usage:
        return "nothing is booked yet"
    if len(view.usage) > ROWS_MAX:
        return f"the greatest {ROWS_MAX} of {form.count(len(view.usage))}"
    return ""
