"""The report as one picture, for slides and chats; drawn by matplotlib without a display or a global state."""

from __future__ import annotations

import io
import math

from tidemill.compress.report import words
from tidemill.compress.report.facts import Report

WAS, IS, INK, SOFT, RULE = "#b4bec9", "#12776e", "#1b2128", "#5b6672", "#dde2e7"
NAME_MAX = 44
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


def picture(report: Report) -> bytes:
    """A PNG: what it came to, time by shape and engine, error by layer, quality over the rows."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.2), dpi=120, facecolor="white", layout="constrained")
        canvas = FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, height_ratios=(1, 1), wspace=0.08, hspace=0.1)
        title = report.name if len(report.name) <= NAME_MAX else report.name[: NAME_MAX - 1] + "…"
        figure.suptitle(
            _plain(f"{title} {report.version}:  {_line(report)}"), x=0.012, ha="left", fontsize=12, fontweight="bold"
        )
        _times(figure.add_subplot(grid[0, 0]), report)
        _sizes(figure.add_subplot(grid[0, 1]), report)
        _errors(figure.add_subplot(grid[1, 0]), report)
        _rows(figure.add_subplot(grid[1, 1]), report)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(length=0)
        into = io.BytesIO()
        canvas.print_png(into)
    return into.getvalue()


def _line(report: Report) -> str:
    best = report.best_speed
    faster = f", {words.times(best.ratio.mean)} as fast" if best else ""
    kept = f"keeps {words.kept(report.metric.kept)} of {report.metric.name}"
    return f"{words.share(report.size_ratio)} of the size{faster}, {kept}"


def _times(axes: object, report: Report) -> None:
    shown = [(f"{each.shape}, {each.engine}", each.before_ms, each.after_ms) for each in report.speeds]
    _pairs(axes, "Time of one call, ms", shown)


def _sizes(axes: object, report: Report) -> None:
    rows = [("file", report.before.size_bytes / 1e6, report.after.size_bytes / 1e6)]
    rows += [
        (f"memory, {each.engine}", each.private_bytes_before / 1e6, each.private_bytes_after / 1e6)
        for each in report.footprints
        if each.private_bytes_before is not None and each.private_bytes_after is not None
    ]
    _pairs(axes, "File and private memory, MB", rows)


def _pairs(axes: object, title: str, rows: list[tuple[str, float, float]]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)  # noqa: S101 - matplotlib has no types of its own here
    axes.set_title(_plain(title))
    if not rows:
        axes.text(0.5, 0.5, "not measured", ha="center", color=SOFT, transform=axes.transAxes)
        axes.set_axis_off()
        return
    places = range(len(rows))
    axes.barh([place - 0.19 for place in places], [row[1] for row in rows], 0.34, color=WAS, label="before")
    axes.barh([place + 0.19 for place in places], [row[2] for row in rows], 0.34, color=IS, label="after")
    largest = max(max(row[1:]) for row in rows)
    for place, row in zip(places, rows, strict=True):
        for shift, value in ((-0.19, row[1]), (0.19, row[2])):
            axes.text(value + largest * 0.012, place + shift, f"{value:.3g}", va="center", fontsize=8, color=INK)
    axes.set_yticks(list(places), [_plain(row[0]) for row in rows])
    axes.set_xlim(0, largest * 1.14)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    # Below, where no title of any length reaches it.
    axes.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.0), ncols=2, borderaxespad=0.2)


def _errors(axes: object, report: Report) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)  # noqa: S101 - as above
    axes.set_title("Error of each layer, held-out rows")
    known = [(index, row.error_held) for index, row in enumerate(report.layers) if row.error_held]
    if not known:
        axes.text(0.5, 0.5, "not taken", ha="center", color=SOFT, transform=axes.transAxes)
        axes.set_axis_off()
        return
    low = 10.0 ** math.floor(math.log10(min(value for _, value in known)))
    axes.vlines([index for index, _ in known], low, [value for _, value in known], color=IS, alpha=0.3, linewidth=2)
    axes.plot([index for index, _ in known], [value for _, value in known], "o", color=IS, markersize=4)
    axes.set_yscale("log")
    axes.set_ylim(bottom=low)
    axes.set_xlabel(f"{len(report.layers)} layers in order")
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xticks([])


def _rows(axes: object, report: Report) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)  # noqa: S101 - as above
    metric = report.metric
    axes.set_title(_plain(f"{metric.name} over {report.data.held_rows:,} held-out rows"))
    if not metric.histogram:
        axes.text(0.5, 0.5, f"{metric.after.mean:.4f}", ha="center", fontsize=18, color=INK, transform=axes.transAxes)
        axes.set_axis_off()
        return
    widths = [end - start for start, end in zip(metric.edges, metric.edges[1:], strict=False)]
    axes.bar(metric.edges[:-1], metric.histogram, widths, align="edge", color=IS, edgecolor="white", linewidth=0.6)
    axes.axvline(metric.after.mean, color=INK, linestyle="--", linewidth=1)
    axes.set_xlabel(f"mean {metric.after.mean:.4f} ({metric.after.low:.4f} to {metric.after.high:.4f})")
    axes.set_yticks([])


def _plain(text: str) -> str:
    """Dollar signs would begin mathematics."""
    return text.replace("$", r"\$")
