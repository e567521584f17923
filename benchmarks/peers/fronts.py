"""Pareto fronts of (loss, cost) and how two of them compare; plain arithmetic. Less of both is better.

The hypervolume is the share of the box between the best there could be, (0, 0), and the reference point that is as bad
as some point of the front in both (Zitzler and Thiele, 1998). What lies beyond the reference adds nothing, and a loss
below 0 counts as 0: on held-out rows a model may be better than the original by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.core.tensor import Array

REFERENCE_COST = 1.0
DRAWS = 400


@dataclass(frozen=True, slots=True)
class Point:
    """A file, on an engine where the cost is time. `loss` is at least 0; before that, over draws of the held-out rows,
    it is `drawn`. `between` is the 95 % interval of a time."""

    name: str
    loss: float
    cost: float
    between: tuple[float, float]
    drawn: Array | None = None


def front(points: Iterable[Point]) -> list[Point]:
    """Those that no other is as good as in both and better in one; by falling loss, without doubles."""
    found: list[Point] = []
    least = math.inf
    for point in sorted(points, key=lambda each: (each.cost, each.loss)):
        if point.loss < least:
            found.append(point)
            least = point.loss
    return found


def candidates(points: Iterable[Point], most: int) -> list[Point]:
    """Those that may be on the front, as far as their times' intervals tell; the quickest `most`."""
    found = list(points)
    kept = [
        each
        for each in found
        if not any(other.loss <= each.loss and other.between[1] < each.between[0] for other in found)
    ]
    return sorted(kept, key=lambda each: each.cost)[:most]


def hypervolume(losses: Sequence[float], costs: Sequence[float], worst_loss: float) -> float:
    """Between 0 and 1; costs are bounded by `REFERENCE_COST`."""
    pairs = sorted(
        (cost, max(loss, 0.0)) for loss, cost in zip(losses, costs, strict=True) if loss < worst_loss and cost < 1
    )
    volume, lost = 0.0, worst_loss
    for cost, loss in pairs:
        if loss < lost:
            volume += (lost - loss) * (REFERENCE_COST - cost)
            lost = loss
    return volume / (worst_loss * REFERENCE_COST)


def volume_of(points: Sequence[Point], worst_loss: float) -> float:
    return hypervolume([each.loss for each in points], [each.cost for each in points], worst_loss)


def difference(ours: Sequence[Point], theirs: Sequence[Point], worst_loss: float) -> tuple[float, float, float]:
    """Our hypervolume less theirs, with the 95 % interval over draws of the held-out rows, the same for both sides."""
    found = volume_of(ours, worst_loss) - volume_of(theirs, worst_loss)
    if any(each.drawn is None for each in (*ours, *theirs)):
        return found, math.nan, math.nan
    sides = []
    for points in (ours, theirs):
        costs = [each.cost for each in points]
        drawn = np.array([each.drawn for each in points]).reshape(len(points), DRAWS)
        sides.append([hypervolume(list(losses), costs, worst_loss) for losses in drawn.T])
    low, high = np.percentile(np.subtract(sides[0], sides[1]), (2.5, 97.5))
    return found, float(low), float(high)


def over_seeds(differences: Sequence[float]) -> tuple[float, float, float]:
    """The mean of paired differences with Student's 95 % interval; no interval for a single one."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return mean, math.nan, math.nan
    from scipy.stats import t

    half = float(t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / math.sqrt(len(differences)))
    return mean, mean - half, mean + half


def ahead(theirs: Sequence[Point], ours: Sequence[Point]) -> list[tuple[Point, Point | None, Point | None]]:
    """Their front's points that none of ours is as good as in both.

    With each: our best of no higher cost, and the cheapest of ours that it cannot be told apart from, by its interval
    over the rows and by that of its time.
    """
    found = []
    for point in front(theirs):
        if any(each.loss <= point.loss and each.cost <= point.cost for each in ours):
            continue
        rival = min((each for each in ours if each.cost <= point.cost), key=lambda each: each.loss, default=None)
        alike = [each for each in ours if each.between[0] <= point.between[1] and not _worse(each, point)]
        found.append((point, rival, min(alike, key=lambda each: each.cost, default=None)))
    return found


def _worse(one: Point, other: Point) -> bool:
    """Whether `one` certainly loses more."""
    if one.loss <= other.loss:
        return False
    if one.drawn is None or other.drawn is None:
        return True
    return float(np.percentile(one.drawn - other.drawn, 2.5)) > 0


def draws(per_row: Array, seed: int = 0) -> Array:
    """The mean over draws of the rows with replacement; the same draws for every file."""
    chance = np.random.default_rng(seed)
    rows = len(per_row)
    return np.array([per_row[chance.integers(0, rows, rows)].mean() for _ in range(DRAWS)])
