"""Answers as pictures: notes as a piano roll, stretches on a line, boxes over a picture, a forecast's curve. Pure.

SVG takes the page's colours by their names; every text in it is escaped. Runs in the console's process.
"""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence

from tidemill.console.answers import Box
from tidemill.console.charts import COLOURS, INK, RULE, Options

WIDTH, ROW, LEFT, AXIS = 640, 14, 40, 22
"""Pixels of the drawing: its width, a key's height, the names' and the seconds' room."""
BLACK = frozenset({1, 3, 6, 8, 10})
"""The black keys, counted from C."""
HISTORY_MAX = 3
"""So many times the forecast's length of what came before is drawn."""
STEPS_S = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 600)
TICKS_MAX = 10


def piano_roll(notes: Sequence[tuple[int, str, float, float, float]]) -> str:
    """Each note from its beginning to its end, on its key; the stronger, the darker."""
    lowest, highest = min(note[0] for note in notes) - 2, max(note[0] for note in notes) + 2
    names = {midi: name for midi, name, *_ in notes}
    end_s = max(note[3] for note in notes)
    height = (highest - lowest + 1) * ROW + AXIS
    parts = []
    for key in range(lowest, highest + 1):
        y = (highest - key) * ROW
        if key % 12 in BLACK:
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT}" height="{ROW}" class="black"/>')
        if key in names:
            parts.append(f'<text x="{LEFT - 6}" y="{y + ROW - 3}" text-anchor="end">{html.escape(names[key])}</text>')
    for midi, name, start, end, strength in notes:
        x, wide = _place(start, end_s), max(2.0, _place(end, end_s) - _place(start, end_s))
        told = html.escape(f"{name} from {start:.2f} s to {end:.2f} s")
        parts.append(
            f'<rect x="{x:.1f}" y="{(highest - midi) * ROW + 1}" width="{wide:.1f}" height="{ROW - 2}" rx="2"'
            f' class="sounds" opacity="{0.35 + 0.65 * min(1.0, max(0.0, strength)):.2f}"><title>{told}</title></rect>'
        )
    return _svg("the notes in time", height, [*_seconds(end_s, height), *parts])


def stretches(rows: Sequence[tuple[float, float, float]]) -> str:
    """Where something was heard, on a line."""
    end_s = max(row[1] for row in rows)
    height = 2 * ROW + AXIS
    parts = [
        f'<rect x="{_place(start, end_s):.1f}" y="4" width="{max(2.0, _place(end, end_s) - _place(start, end_s)):.1f}"'
        f' height="{2 * ROW - 8}" rx="3" class="sounds"><title>{start:.2f} s to {end:.2f} s</title></rect>'
        for start, end, _ in rows
    ]
    return _svg("the stretches in time", height, [*_seconds(end_s, height), *parts])


def boxes(found: Sequence[Box], width: int, height: int) -> str:
    """Numbered boxes to lie over a picture of `width` by `height` pixels."""
    parts = []
    size = max(10.0, max(width, height) / 45)
    for number, box in enumerate(found, start=1):
        if not box:
            continue
        corners = " ".join(f"{x:.0f},{y:.0f}" for x, y in box)
        x, y = min(point[0] for point in box), min(point[1] for point in box)
        parts.append(
            f'<polygon points="{corners}"/><text x="{x:.0f}" y="{max(size, y - size / 4):.0f}"'
            f' font-size="{size:.0f}">{number}</text>'
        )
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'


def forecast(rows: Sequence[tuple[str, float]], before: Sequence[tuple[str, float]] = ()) -> Options:
    """The curve of `rows`, behind that of what came before where that is known."""
    known = list(before)[-HISTORY_MAX * len(rows) :]
    past: list[float | None] = [value for _, value in known]
    values: list[float | None] = [value for _, value in rows]
    joined = past[-1:]  # so that the two curves touch
    series = [
        _curve("forecast", [None] * (len(past) - len(joined)) + joined + values, COLOURS[1]),
    ]
    if past:
        series.insert(0, _curve("given", [*past, *([None] * len(values))], COLOURS[0]))
    return {
        "animation": False,
        "grid": {"left": 4, "right": 12, "top": 34, "bottom": 2, "containLabel": True},
        "legend": {"top": 2, "left": 0, "itemWidth": 10, "itemHeight": 10, "icon": "rect", "textStyle": {"color": INK}},
        "tooltip": {"trigger": "axis", "confine": True, "transitionDuration": 0},
        "xAxis": {
            "type": "category",
            "data": [when for when, _ in (*known, *rows)],
            "axisLabel": {"color": INK, "hideOverlap": True},
            "axisLine": {"lineStyle": {"color": RULE}},
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "scale": True,
            "splitNumber": 4,
            "axisLabel": {"color": INK},
            "splitLine": {"lineStyle": {"color": RULE}},
        },
        "series": series,
    }


def history(text: str) -> list[tuple[str, float]]:
    """The rows of a CSV with one column of numbers behind its first; of any other, nothing."""
    rows = list(csv.reader(text.splitlines()))
    if len(rows) < 2 or any(len(row) != 2 for row in rows if row):
        return []
    found = []
    for row in rows[1:]:
        try:
            found.append((row[0], float(row[1])))
        except (IndexError, ValueError):
            continue
    return found


def _curve(name: str, data: list[float | None], colour: str) -> Options:
    return {
        "name": name, "type": "line", "data": data, "showSymbol": False, "color": colour,
        "lineStyle": {"width": 1.8}, "emphasis": {"disabled": True},
    }  # fmt: skip


def _place(second: float, end_s: float) -> float:
    return LEFT + (WIDTH - LEFT - 8) * (second / end_s if end_s > 0 else 0.0)


def _seconds(end_s: float, height: int) -> list[str]:
    step = next((each for each in STEPS_S if end_s / each <= TICKS_MAX), end_s / TICKS_MAX)
    parts = []
    for number in range(int(end_s / step + 1e-6) + 1):
        x = _place(number * step, end_s)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - AXIS}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{number * step:g} s</text>')
    return parts


def _svg(title: str, height: int, parts: list[str]) -> str:
    return f'<svg class="drawing" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
