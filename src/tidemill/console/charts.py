"""Histories as ECharts options; pure, runs in the console's process.

Times are Unix milliseconds, so the browser writes them in the reader's own time zone. The greys read on dark and light.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tidemill.console.rates import RECENT, Point, batch_rows, busiest
from tidemill.console.snapshot import ModelKey

Options: TypeAlias = dict[str, Any]
Series: TypeAlias = list[list[float | None]]

SPAN_S = 300
LINES_MAX = 6
"""Models with a line of their own; the others share one."""
COLOURS = ("#4a90d9", "#e08a3c", "#34a58a", "#b07cc6", "#c9a227", "#7c8fa1")
OTHERS_COLOUR = "#9aa0a6"
OTHERS = "others"
INK, RULE = "#8a929b", "rgba(128,136,146,.22)"


def label(key: ModelKey) -> str:
    """How a version is named on the page."""
    return f"{key[0]} v{key[1]}"


def traffic(points: Sequence[Point], now: float) -> Options:
    """Requests per second of every model that had any, stacked; the busiest have a line of their own."""
    ranked = [key for key in busiest(points) if any(_growth_requests(point, key) for point in points)]
    own, shared = ranked[:LINES_MAX], ranked[LINES_MAX:]
    if len(shared) == 1:  # a line called "others" says less than the name of the only other
        own, shared = ranked, []
    lines = [(label(key), [key]) for key in sorted(own)] + ([(OTHERS, shared)] if shared else [])
    series = [
        _line(
            name,
            [_sample(point, _sum_s(point, keys)) for point in points],
            OTHERS_COLOUR if name == OTHERS or index >= len(COLOURS) else COLOURS[index],
        )
        | {"stack": "all", "areaStyle": {"opacity": 0.22}}
        for index, (name, keys) in enumerate(lines)
    ]
    return _options(series, now, "v => v.toLocaleString('en')", "v => v == null ? '–' : v.toLocaleString('en') + ' /s'")


def latency(points: Sequence[Point], now: float, key: ModelKey | None) -> Options:
    """p50 and p99 of one model, in milliseconds."""
    p50: Series = []
    p99: Series = []
    for point in points:
        growth = (point.models or {}).get(key) if key else None
        p50.append(_sample(point, _milliseconds(growth.p50_s if growth else None)))
        p99.append(_sample(point, _milliseconds(growth.p99_s if growth else None)))
    series = [_line("p99", p99, COLOURS[1]), _line("p50", p50, COLOURS[0])]
    return _options(series, now, "v => v.toLocaleString('en') + ' ms'", "v => v == null ? '–' : v + ' ms'")


def batches(points: Sequence[Point], now: float, key: ModelKey | None) -> Options:
    """Mean size of the batches of one model, each point over the last few."""
    sizes: Series = []
    for index, point in enumerate(points):
        window = points[max(0, index - RECENT + 1) : index + 1]
        known = point.models is not None and key is not None
        sizes.append(_sample(point, batch_rows(window, key) if known else None))
    series = [_line("rows per batch", sizes, COLOURS[2])]
    return _options(series, now, "v => v.toLocaleString('en')", "v => v == null ? '–' : v + ' rows'")


def _growth_requests(point: Point, key: ModelKey) -> int:
    growth = (point.models or {}).get(key)
    return growth.requests if growth else 0


def _sum_s(point: Point, keys: list[ModelKey]) -> float | None:
    if point.models is None or point.seconds <= 0:
        return None
    return sum(_growth_requests(point, key) for key in keys) / point.seconds


def _milliseconds(value_s: float | None) -> float | None:
    return None if value_s is None else value_s * 1000


def _sample(point: Point, value: float | None) -> list[float | None]:
    return [round(point.at * 1000), None if value is None else float(f"{value:.4g}")]


def _line(name: str, data: Series, colour: str) -> Options:
    return {
        "id": name,
        "name": name,
        "type": "line",
        "data": data,
        "showSymbol": False,
        "lineStyle": {"width": 1.5},
        "color": colour,
        "emphasis": {"disabled": True},
    }


def _options(series: list[Options], now: float, axis: str, tip: str) -> Options:
    """`axis` and `tip` are JavaScript functions from a value to its text."""
    empty = not any(value is not None for line in series for _, value in line["data"])
    return {
        "animation": False,
        "grid": {"left": 4, "right": 12, "top": 34, "bottom": 2, "containLabel": True},
        "legend": {
            "type": "scroll",
            "top": 2,
            "left": 0,
            "itemWidth": 10,
            "itemHeight": 10,
            "icon": "rect",
            "textStyle": {"color": INK, "fontSize": 12},
            "pageTextStyle": {"color": INK},
            "pageIconColor": INK,
        },
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "transitionDuration": 0,
            "backgroundColor": "rgba(24,29,35,.94)",
            "borderWidth": 0,
            "textStyle": {"color": "#e6e9ed", "fontSize": 12},
            ":valueFormatter": tip,
        },
        "xAxis": {
            "type": "time",
            "min": round((now - SPAN_S) * 1000),
            "max": round(now * 1000),
            "minInterval": 60_000,
            "axisLabel": {"color": INK, "formatter": "{HH}:{mm}", "hideOverlap": True},
            "axisLine": {"lineStyle": {"color": RULE}},
            "axisTick": {"show": False},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            "max": 3 if empty else None,  # an axis without values has no labels and no room for those of the other
            "splitNumber": 3,
            "axisLabel": {"color": INK, ":formatter": axis},
            "splitLine": {"lineStyle": {"color": RULE}},
        },
        "series": series,
    }
