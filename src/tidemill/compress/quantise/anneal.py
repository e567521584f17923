"""Rounding learned by gradient against the layer's output; runs wherever a layer is solved.

As AdaRound (Nagel et al., 2020) each weight is a place between two values, and a penalty that grows drives it to one of
them. Here the penalty is λ · slope² · H_jj · f(1 − f), f the fraction of the way between two rungs: at λ = 1 it cancels
the loss's own curvature along each weight, so what is a minimum at the end is one of rounded weights, for every layer
alike, with no strength to tune. The loss needs H alone, tr(ΔW H ΔWᵀ): its gradient is one matrix product, so numpy in
float32 does what a deep-learning library would, and every worker stays small.
"""

from __future__ import annotations

import numpy as np

from tidemill.compress.quantise.ladder import Ladder
from tidemill.core.tensor import Array

RATE = 0.05  # rungs
ROWS_MAX = 256  # at a time: rows do not depend on each other, and few stay in a core's cache
PENALTY_FULL = 0.9  # the share of the steps after which λ is 1
DECAY = (0.9, 0.99)


def annealed(target: Array, matrix: Array, ladder: Ladder, steps: int, rate: float = RATE) -> Array:
    """Codes (float64) for `target`, by `steps` of Adam from the target's own places on the ladder."""
    matrix = (matrix / float(np.mean(np.diagonal(matrix)))).astype(np.float32)
    parts = [slice(at, at + ROWS_MAX) for at in range(0, len(target), ROWS_MAX)]
    return np.concatenate([_places(target[part], matrix, ladder.part(part), steps, rate) for part in parts])


def _places(target: Array, matrix: Array, ladder: Ladder, steps: int, rate: float) -> Array:
    diagonal = np.diagonal(matrix)
    aim = target.astype(np.float32)
    places = ladder.start(target)
    first, second = np.zeros_like(places), np.zeros_like(places)
    for step in range(steps):
        penalty = np.float32(step / (steps * PENALTY_FULL))
        values, slope = ladder.between(places)
        gradient = ((values - aim) @ matrix) * slope
        curvature = slope * slope * diagonal
        # Half the gradient, in units of each weight's own curvature: rungs to go, were the others right.
        gradient /= np.where(curvature > 0, curvature, np.float32(1))
        gradient += penalty * (np.float32(0.5) - (places - np.floor(places)))
        first += (1 - np.float32(DECAY[0])) * (gradient - first)
        second += (1 - np.float32(DECAY[1])) * (gradient * gradient - second)
        warm = np.float32(rate * (1 - 0.9 * step / steps) / (1 - DECAY[0] ** (step + 1)))
        places -= warm * first / (np.sqrt(second / np.float32(1 - DECAY[1] ** (step + 1))) + np.float32(1e-8))
        np.clip(places, 0, ladder.top, out=places)
    return np.rint(places).astype(np.float64)
