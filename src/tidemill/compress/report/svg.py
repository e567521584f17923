"""The report's drawings as SVG; colours come from the page's style, so they follow light and dark. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape

from tidemill.compress.report import words
from tidemill.compress.report.facts import LayerFacts, Peer
from tidemill.repository.lineage import Measured

WIDTH = 960
LEFT, RIGHT = 64, 16
LOWEST_ERROR = 1e-9


def layers(rows: Sequence[LayerFacts]) -> str:
    """Above, each layer's error on rows it did not learn from (and on those it did) on a logarithmic scale; below, the
    share of its bytes that is left. One column a layer, in the order in which the model computes them."""
    top, tall, gap, low = 24, 190, 40, 90
    step = (WIDTH - LEFT - RIGHT) / len(rows)
    bar = max(1.5, min(22.0, step * 0.62))
    errors = [value for row in rows for value in (row.error_held, row.error_fit) if value]
    parts = []
    bottom = top + tall
    if errors:
        least = max(math.floor(math.log10(max(min(errors), LOWEST_ERROR))), -9)
        most = max(math.ceil(math.log10(max(errors))), least + 1)

        def height(value: float) -> float:
            at = (math.log10(max(value, 10.0**least)) - least) / (most - least)
            return bottom - at * tall

        every = max(1, math.ceil((most - least) / 6))
        for power in range(least, most + 1, every):
            parts += _rule(height(10.0**power), _power(power))
        for index, row in enumerate(rows):
            x = LEFT + (index + 0.5) * step
            if row.error_held:
                y = height(row.error_held)
                parts.append(_line("stem", x, x, bottom, y, bar / 3))
                parts.append(_circle("dot", x, y, min(5.0, bar / 2 + 1)))
            if row.error_fit:
                parts.append(_circle("ring", x, height(row.error_fit), min(4.0, bar / 2 + 1)))
    else:
        parts.append(_text(LEFT, top + tall / 2, "no layer's error was taken", "start"))
    parts.append(_text(4, top - 12, "error", "start", "axis"))
    base = bottom + gap + low
    parts += _rule(base - low, "100 %") + _rule(base - low / 2, "50 %") + _rule(base, "0")
    for index, row in enumerate(rows):
        x = LEFT + (index + 0.5) * step - bar / 2
        left = min(row.size_bytes_after / row.size_bytes_before, 1.0) if row.size_bytes_before else 0.0
        parts.append(f'<rect class="was" x="{x:.1f}" y="{base - low}" width="{bar:.1f}" height="{low}"/>')
        parts.append(
            f'<rect class="is" x="{x:.1f}" y="{base - left * low:.1f}" width="{bar:.1f}" height="{left * low:.1f}"/>'
        )
    parts.append(_text(4, base - low - 14, "bytes", "start", "axis"))
    for index, row in enumerate(rows):
        parts.append(
            f'<rect class="ear" x="{LEFT + index * step:.1f}" y="{top}" width="{step:.1f}" height="{base - top}">'
            f"<title>{escape(_told(row))}</title></rect>"
        )
    last = len(rows) - 1
    for index in sorted({0, last, len(rows) // 2 if last > 1 else 0}):
        anchor = "start" if index == 0 else "end" if index == last else "middle"
        x = LEFT if index == 0 else WIDTH - RIGHT if index == last else LEFT + (index + 0.5) * step
        parts.append(_text(x, base + 18, _cut(rows[index].name, 34), anchor))
    return _svg(base + 28, "error and size of each layer", parts)


def histogram(counts: Sequence[int], edges: Sequence[float], after: Measured, width: int = 470) -> str:
    """How many held-out rows have which value of the metric after compression, with their mean."""
    top, tall, left = 20, 150, 40
    low, high = edges[0], edges[-1]
    span = (high - low) or 1.0
    most = max(*counts, 1)

    def across(value: float) -> float:
        return left + (min(max(value, low), high) - low) / span * (width - left - 14)

    parts = []
    base = top + tall
    for number, (start, end) in zip(counts, itertools.pairwise(edges), strict=True):
        x, far = across(start), across(end)
        tall_bar = number / most * tall
        told = f"{number} rows from {start:.4f} to {end:.4f}"
        parts.append(_rect("is", x + 0.5, base - tall_bar, max(far - x - 1, 0.8), tall_bar, told))
    parts.append(f'<line class="axis-line" x1="{left}" x2="{width - 14}" y1="{base}" y2="{base}"/>')
    x = across(after.mean)
    parts.append(f'<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{base}"/>')
    anchor = "end" if x > width / 2 else "start"
    parts.append(_text(x + (-6 if anchor == "end" else 6), top + 4, f"mean {after.mean:.4f}", anchor, "axis"))
    parts.append(_text(left - 6, top + 4, str(most), "end", "axis"))
    parts.append(_text(left - 6, base, "0", "end", "axis"))
    parts.append(_text(left, base + 18, f"{low:.4g}", "start", "axis"))
    parts.append(_text(width - 14, base + 18, f"{high:.4g}", "end", "axis"))
    return _svg(base + 26, "the metric over held-out rows", parts, width)


def front(points: Sequence[Peer], here: str, width: int = 470) -> str:
    """Size against quality of every model of the run; `here` names the one that the report is about."""
    top, tall, left, right = 16, 170, 58, 20
    base = top + tall
    largest = max(point.size_bytes for point in points) * 1.06
    values = [point.metric for point in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.14 or 0.01
    low, high = low - margin, high + margin
    parts = []
    for value in sorted({min(values), max(values)}):
        parts += _rule(base - (value - low) / (high - low) * tall, f"{value:.3f}", left, width - right)
    for point in points:
        x = left + point.size_bytes / largest * (width - left - right)
        y = base - (point.metric - low) / (high - low) * tall
        kind = "dot" if point.name == here else "ring"
        told = f"{point.name}: {words.size(point.size_bytes)}, {point.metric:.4f}"
        parts.append(_circle(kind, x, y, 5, told))
        near_edge = x > width - 130
        parts.append(
            _text(x + (-9 if near_edge else 9), y + 4, _cut(point.name, 20), "end" if near_edge else "start", "axis")
        )
    parts.append(_text(left, base + 18, "0", "start", "axis"))
    parts.append(_text(width - right, base + 18, words.size(largest), "end", "axis"))
    return _svg(base + 26, "size against quality", parts, width)


def _told(row: LayerFacts) -> str:
    sizes = f"{words.size(row.size_bytes_before)} → {words.size(row.size_bytes_after)}"
    errors = f"error {words.error(row.error_held)} held out, {words.error(row.error_fit)} learned"
    return f"{row.name} ({row.op}, {row.method})\n{words.bits(row.bits)} bits, {sizes}\n{errors}"


def _svg(height: float, title: str, parts: Sequence[str], width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _line(kind: str, x1: float, x2: float, y1: float, y2: float, width: float = 1.0) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke-width="{width:.1f}"/>'


def _circle(kind: str, x: float, y: float, radius: float, told: str = "") -> str:
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{title}</circle>'


def _rect(kind: str, x: float, y: float, width: float, height: float, told: str = "") -> str:
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">{title}</rect>'


def _rule(y: float, label: str, left: float = LEFT, right: float = WIDTH - RIGHT) -> list[str]:
    return [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
        _text(left - 8, y + 4, label, "end", "axis"),
    ]


def _text(x: float, y: float, said: str, anchor: str, kind: str = "axis") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _power(power: int) -> str:
    digits = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "1" if power == 0 else f"10{digits}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[-(most - 1) :]
