"""Gives layers back their own weights until a model keeps what was asked for; runs where the pipeline does.

Of a solver's layers any may be reverted afterwards (`meet`); a method that looks at the whole model is called again for
fewer layers (`leaving_out`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final

from tidemill.compress.graph import Graph
from tidemill.compress.method import Outcome
from tidemill.compress.pipeline import Emitter, Solved, assemble
from tidemill.core.errors import InvalidRecipe, QualityLost

CHOSEN: Final = "which layers went back was decided on the held-out rows: on others the metric may be a little lower"
FIRST_SHARE: Final = 1 / 16
"""Of the layers, left out in the first of the tries; each next one leaves out twice as many."""
TRIES_MAX: Final = 4


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


def leaving_out(
    whole: Outcome, made: Callable[[frozenset[str]], Outcome], judge: Callable[[Graph], float], keep: float
) -> Outcome:
    """The first outcome that keeps `keep` of the metric: `whole`, or one that `made` gives without the layers whose
    outputs are most in error in it. Where none does, the one that keeps most, with a note that says so."""
    share = judge(whole.graph)
    if share >= keep:
        return whole
    order = sorted(whole.layers, key=lambda name: -_error(whole, name))
    best, kept, out = whole, share, 0
    count = max(1, round(len(order) * FIRST_SHARE))
    for _ in range(TRIES_MAX):
        if count >= len(order):
            break
        try:
            outcome = made(frozenset(order[:count]))
        except InvalidRecipe:  # nothing is left that the method could work on
            break
        share = judge(outcome.graph)
        if share > kept:
            best, kept, out = outcome, share, count
        if share >= keep:
            break
        count *= 2
    notes = [f"{name} was left as it is, to keep the metric" for name in order[:out]]
    if out:
        notes.append(CHOSEN)
    if kept < keep:
        notes.append(
            f"no choice of layers to leave out that was tried keeps {keep:.4g} of the metric; {kept:.4g} at best"
        )
    return replace(best, notes=(*best.notes, *notes))


def _error(outcome: Outcome, name: str) -> float:
    """Relative, of the layer's output; what could not be told is worst."""
    errors = (outcome.layers[name].error_fit, outcome.layers[name].error_held)
    return max(each if isfinite(each) else float("inf") for each in errors)
