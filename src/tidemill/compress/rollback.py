"""Gives layers back their own weights until a model keeps what was asked for; runs where the pipeline does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidemill.compress.graph import Graph
from tidemill.compress.pipeline import Emitter, Solved, assemble
from tidemill.core.errors import QualityLost


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """`share` is what `graph` keeps of the metric; `reverted` names the layers that got their own weights back."""

    graph: Graph
    share: float
    reverted: tuple[str, ...] = ()


def meet(
    solved: Solved,
    judge: Callable[[Graph], float],
    keep: float,
    *,
    rolls_back: bool = True,
    emitter: Emitter | None = None,
) -> Kept:
    """The graph that keeps `keep` of the metric, with as few layers reverted as a bisection finds: those first that
    lose most for the bytes they save. At most log₂(layers) + 2 judgements.

    `judge` gives the share of the original's metric that a graph keeps. Raises `QualityLost`.
    """
    share = judge(solved.graph)
    if share >= keep:
        return Kept(solved.graph, share)
    if not rolls_back:
        raise QualityLost(
            f"the compressed model keeps {share:.4g} of the metric, and {keep:.4g} was asked for; ask for less, give"
            " more calibration data or more bits, or let layers roll back"
        )
    order = [layer.name for layer, _ in sorted(solved.results.items(), key=lambda item: -_harm(solved, item[0].name))]
    best: Kept | None = None
    low, high = 0, len(order)  # `low` reverted are too few
    while high - low > 1:
        middle = (low + high) // 2
        graph = assemble(solved, frozenset(order[:middle]), emitter)
        share = judge(graph)
        if share >= keep:
            best, high = Kept(graph, share, tuple(order[:middle])), middle
        else:
            low = middle
    if best is None:
        raise QualityLost(
            f"even with all layers but one rolled back the model keeps less than {keep:.4g} of the metric"
            f" ({share:.4g}); ask for less, or for another method"
        )
    return best


def _harm(solved: Solved, name: str) -> float:
    layer, result = next((layer, result) for layer, result in solved.results.items() if layer.name == name)
    saved = max(layer.size * 4 - result.size_bytes, 1)
    return max(result.error_held, result.error_fit) / saved
