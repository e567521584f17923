"""Pieces of HTML that the report is built of; whatever text they are given is escaped. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

Cell = str | tuple[str, str]
"""Text, or text with the class of its cell: "n" for numbers, "name" and "long" for what may be broken."""


def section(title: str, *parts: str, note: str = "") -> str:
    """`parts` are HTML already."""
    said = f'<p class="soft small">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{''.join(parts)}</section>"


def table(columns: Sequence[Cell], rows: Iterable[Sequence[Cell]]) -> str:
    lines = [_row("th", columns), *(_row("td", row) for row in rows)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _row(tag: str, cells: Sequence[Cell]) -> str:
    parts = []
    for cell in cells:
        text, kind = cell if isinstance(cell, tuple) else (cell, "")
        parts.append(f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>"


def legend(*entries: tuple[str, str]) -> str:
    """(class of the mark, what it means)."""
    parts = (f'<span><i class="{kind}"></i>{escape(said)}</span>' for kind, said in entries)
    return f'<div class="legend">{"".join(parts)}</div>'


BOTH = legend(("l-was", "before"), ("l-is", "after"))


def group(title: str, aside: str = "") -> str:
    """The title of some bars."""
    beside = f'<span class="soft small aside">{escape(aside)}</span>' if aside else ""
    return f'<div class="group">{escape(title)}{beside}</div>'


def pair(
    name: str,
    before: float | None,
    after: float | None,
    largest: float,
    form: Callable[[float | None], str],
    more: str = "",
    hint: str = "",
) -> str:
    """Two bars, one below the other, with their values: three cells of a grid `bars`."""
    tracks = "".join(
        f'<div class="bar {kind}" style="width:{value / largest * 100:.2f}%"></div>'
        for kind, value in (("was", before), ("is", after))
        if value is not None and largest > 0
    )
    beside = f' <span class="soft">{escape(more)}</span>' if more else ""
    told = f"{escape(form(before))} → <b>{escape(form(after))}</b>{beside}"
    return (
        f'<div class="what">{escape(name)}</div><div class="track">{tracks}</div>'
        f'<div class="value" title="{escape(hint)}">{told}</div>'
    )


def bars(parts: Iterable[str]) -> str:
    return f'<div class="bars">{"".join(parts)}</div>'


def folded(title: str, inside: str, opened: bool = False) -> str:
    """`inside` is HTML already."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{inside}</details>"


def items(said: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in said)}</ul>"
