"""The table of batches and how far they are; runs in the console's process."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tidemill.console import format as form
from tidemill.console.api import View
from tidemill.console.pages.parts import box, say, words
from tidemill.console.snapshot import Job

ROWS_MAX = 20
COLUMNS = [
    {"name": name, "label": name, "field": name, "align": align}
    for name, align in (
        ("batch", "left"),
        ("tenant", "left"),
        ("state", "left"),
        ("done", "right"),
        ("failed", "right"),
    )
]


def rows(jobs: tuple[Job, ...]) -> list[dict[str, Any]]:
    """The newest first, `ROWS_MAX` at most."""
    return [
        {
            "id": each.id,
            "batch": f"…{each.id[-10:]} {each.endpoint}",
            "tenant": each.tenant,
            "state": each.status,
            "done": done(each),
            "failed": form.count(each.failed) if each.failed else form.NOTHING,
        }
        for each in jobs[:ROWS_MAX]
    ]


def done(job: Job) -> str:
    """`12 of 40, 30 %`; nothing before its lines were counted."""
    if not job.total:
        return form.NOTHING
    over = job.completed + job.failed
    return f"{form.count(over)} of {form.count(job.total)}, {over * 100 // job.total} %"


class Jobs:
    """Built once a page, then told of every view; not to be seen while there are no batches."""

    def __init__(self) -> None:
        with box("card wide-card", "section") as self._card:
            with box("top"):
                words("Batches", "title", "h2")
                self._note = words("", "soft")
            with box("rows"):
                self._table = ui.table(columns=COLUMNS, rows=[], row_key="id").props("dense flat")
        self._card.set_visibility(False)

    def show(self, view: View) -> None:
        """Write the batches of `view` down."""
        self._card.set_visibility(bool(view.jobs))
        more = len(view.jobs) > ROWS_MAX
        say(self._note, f"the newest {ROWS_MAX}" if more else "")
        self._table.rows = rows(view.jobs)
