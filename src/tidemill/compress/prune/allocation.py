"""Shares one budget of zeros among layers by their error curves; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tidemill.core.errors import InvalidRecipe


@dataclass(frozen=True, slots=True)
class Curve:
    """What giving up a share of a layer costs: `errors[i]` at `shares[i]`, shares rising from 0. `size` is what a whole
    layer counts for in the budget."""

    size: float
    shares: Sequence[float]
    errors: Sequence[float]


def allocate(curves: Mapping[str, Curve], share: float) -> dict[str, float]:
    """The share of each layer, `share` of all by size, at the least sum of errors: the cheapest steps of the curves'
    lower convex hulls, one after another, the last one in part. Raises `InvalidRecipe` beyond the curves' ends."""
    budget = share * sum(curve.size for curve in curves.values())
    most = sum(curve.size * curve.shares[-1] for curve in curves.values())
    if budget > most * (1 + 1e-9):
        raise InvalidRecipe(
            f"a share of {share:.3g} cannot be given up: the layers' curves end at {most * share / budget:.3g}"
        )
    steps = []
    for name, curve in curves.items():
        hull = _hull(curve)
        for (start, low), (stop, high) in pairwise(hull):
            size = (stop - start) * curve.size
            steps.append(((high - low) / size if size else 0.0, name, stop - start, size))
    found = dict.fromkeys(curves, 0.0)
    for _, name, width, size in sorted(steps, key=lambda step: step[0]):  # stable: a curve's own steps keep their order
        part = min(1.0, budget / size) if size else 1.0
        found[name] += width * part
        budget -= size * part
        if budget <= 0:
            break
    return found


def _hull(curve: Curve) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for x, y in zip(curve.shares, curve.errors, strict=True):
        while len(points) >= 2:
            (ax, ay), (bx, by) = points[-2:]
            if (by - ay) * (x - bx) <= (y - by) * (bx - ax):
                break
            points.pop()
        points.append((x, y))
    return points
