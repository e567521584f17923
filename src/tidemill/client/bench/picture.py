"""Latency against load as a picture: in a terminal, or as a PNG by matplotlib; runs in the caller's process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tidemill.client.bench.statistics import Summary
from tidemill.core.errors import MissingPart

WIDTH, HEIGHT = 64, 12
MARKS = (("●", "○"), ("■", "□"))
PLAIN_MARKS = (("*", "o"), ("#", "+"))
"""(p50, p99) of the first side and of the second."""
COLOURS = ("#0f766e", "#b45309")
_DPI = 144


def by_side(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Those with latencies, in the order of the run."""
    found: dict[str, list[Summary]] = {}
    for each in summaries:
        if each.p50_ms is not None and each.per_second > 0:
            found.setdefault(each.side, []).append(each)
    return found


def terminal(summaries: Sequence[Summary], width: int = WIDTH, height: int = HEIGHT, plain: bool = False) -> list[str]:
    """Lines of a plot with both axes logarithmic: requests answered a second, and milliseconds at p50 and p99.

    Nothing where there are not two points. The lines of the plot are `width` wide and a margin; where two marks fall on
    one place, the first stays.
    """
    sides = by_side(summaries)
    marks = PLAIN_MARKS if plain else MARKS
    points = [
        (each.per_second, value, mark)
        for (_, several), pair in zip(sides.items(), marks, strict=False)
        for each in several
        for value, mark in zip((each.p50_ms, each.p99_ms), pair, strict=True)
        if value
    ]
    if len({x for x, _, _ in points}) < 2:
        return []
    across = _Scale([x for x, _, _ in points], width)
    up = _Scale([y for _, y, _ in points], height)
    grid = [[" "] * width for _ in range(height)]
    for x, y, mark in points:
        row, column = height - 1 - up.place(y), across.place(x)
        if grid[row][column] == " ":
            grid[row][column] = mark
    edges = {0: up.high, height - 1: up.low}
    bar, corner, floor = ("|", "+", "-") if plain else ("│", "└", "─")
    lines = [
        f"{_number(edges[row]) if row in edges else '':>8} {bar}{''.join(cells).rstrip()}"
        for row, cells in enumerate(grid)
    ]
    low, high = _number(across.low), _number(across.high)
    lines.append(f"{'ms':>8} {corner}{floor * width}")
    lines.append(f"{'':>10}{low}{'answers/s':^{max(width - len(low) - len(high), 9)}}{high}")
    told = [f"{pair[0]} p50 {pair[1]} p99 {side}" for side, pair in zip(sides, marks, strict=False)]
    return [*lines, " " * 10 + "   ".join(told)]


class _Scale:
    """A logarithmic axis of so many places."""

    def __init__(self, values: Sequence[float], places: int) -> None:
        self.low, self.high = min(values), max(values)
        self._places = places
        self._span = math.log(self.high / self.low)

    def place(self, value: float) -> int:
        share = math.log(value / self.low) / self._span if self._span > 0 else 0.0
        return min(max(round(share * (self._places - 1)), 0), self._places - 1)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def check_png() -> None:
    """Raises `MissingPart` before a run whose picture could not be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPart("--plot needs matplotlib: pip install 'tidemill[compress]'") from error


def png(summaries: Sequence[Summary], title: str, file: Path) -> None:
    """Latency against answers a second, and what a request costs the server, at every load. Raises `OSError`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9, 4), dpi=_DPI, layout="constrained")
    latency, cost = figure.subplots(1, 2, width_ratios=(3, 2))
    names: list[str] = []
    for each in summaries:
        if each.load not in names:
            names.append(each.load)
    for place, (side, several) in enumerate(by_side(summaries).items()):
        colour = COLOURS[place % len(COLOURS)]
        rates = [each.per_second for each in several]
        latency.plot(rates, [each.p50_ms for each in several], "o-", color=colour, label=f"{side}, p50")
        latency.plot(rates, [each.p99_ms for each in several], "o--", color=colour, mfc="white", label=f"{side}, p99")
        known = [(names.index(each.load), each.cpu_us) for each in several if each.cpu_us is not None]
        if known:
            cost.plot([at for at, _ in known], [us for _, us in known], "o-", color=colour, label=side)
    latency.set(xscale="log", yscale="log", xlabel="answers per second", ylabel="latency, ms")
    for axis in (latency.xaxis, latency.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: _number(value)))
    latency.tick_params(which="both", labelsize=8)
    cost.set(xlabel="load", ylabel="server CPU per request, µs", xticks=range(len(names)))
    cost.set_xticklabels(names, rotation=45, ha="right", fontsize=8)
    cost.set_ylim(bottom=0)
    for axes in (latency, cost):
        axes.grid(True, which="both", color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.has_data():
            axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file)
