"""What a language model gives under load as a PNG by matplotlib: first token and further ones against tokens a second;
runs in the caller's process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill.client.bench.picture import COLOURS
from tidemill.client.bench.statistics import Summary

_DPI = 144


def png(summaries: Sequence[Summary], title: str, file: Path) -> None:
    """TTFT and TPOT, p50 and p99, at every load that was answered. Raises `OSError`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=_DPI, layout="constrained")
    first, further = figure.subplots(1, 2)
    sides: dict[str, list[Summary]] = {}
    for each in summaries:
        if each.words is not None:
            sides.setdefault(each.side, []).append(each)
    for place, (side, several) in enumerate(sides.items()):
        colour = COLOURS[place % len(COLOURS)]
        told = [each.words for each in several if each.words is not None]
        rates = [each.per_second for each in told]
        for axes, kind in ((first, "ttft"), (further, "tpot")):
            for share, style, face in (("p50", "o-", colour), ("p99", "o--", "white")):
                values = [getattr(each, f"{kind}_{share}_ms") or float("nan") for each in told]
                axes.plot(rates, values, style, color=colour, mfc=face, label=f"{side}, {share}")
            for each, x in zip(several, rates, strict=True):
                axes.annotate(each.load, (x, getattr(each.words, f"{kind}_p50_ms") or float("nan")), fontsize=6,
                              xytext=(3, 3), textcoords="offset points", color="#6b7280")  # fmt: skip
    for axes, what in ((first, "first token, ms"), (further, "each further token, ms")):
        axes.set(xlabel="tokens per second", ylabel=what)
        axes.set_ylim(bottom=0)
        axes.grid(True, color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.has_data():
            axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file)
