"""A layer's weights as a sparse vector θ: the Lasso's and the ridge's path, on second moments alone; pure functions.

Minimises ½ tr((W − θ) H (W − θ)ᵀ) + λ Σ |θⱼ| √Hⱼⱼ (Tibshirani, 1996), by accelerated proximal steps (Beck and Teboulle,
FISTA, 2009) from large λ to small, each from where the last one ended. A weight's penalty is in the units of what it
gives, so that the same λ means the same for every layer. float32 inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.prune.obs import Pattern
from tidemill.core.tensor import Array

STEPS = 12
"""λ falls from `START` of its largest by `FALL` at each."""
START = 0.3
FALL = 0.5
ITERATIONS = 10
RIDGE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """At each λ (falling): the share of θ that is zero, and Σ|θ| next to that of the weights, both scaled by √H."""

    penalties: Array
    zeros: Array
    masses: Array


def lasso_path(weight: Array, matrix: Array, rows_max: int = 64) -> Path:
    """Of `rows_max` rows from all over: enough to say how many go at which λ."""
    some = np.unique(np.linspace(0, len(weight) - 1, min(rows_max, len(weight))).round().astype(int))
    scaled, likeness = _scaled(weight[some], matrix)
    penalties, zeros, masses = [], [], []
    whole = max(float(np.abs(scaled).sum()), 1e-30)
    for penalty, theta in _steps(scaled, likeness):
        penalties.append(penalty)
        zeros.append(float((theta == 0).mean()))
        masses.append(float(np.abs(theta).sum()) / whole)
    return Path(np.array(penalties), np.array(zeros), np.array(masses))


def lasso_support(weight: Array, matrix: Array, pattern: Pattern) -> Array:
    """The mask of the largest |θ| where the path first holds as many weights as the pattern keeps."""
    scaled, likeness = _scaled(weight, matrix)
    kept = pattern.select(np.abs(scaled)).sum()
    theta = scaled
    for _, theta in _steps(scaled, likeness):
        if (theta != 0).sum() >= kept:
            break
    # Where the whole path is sparser than asked, the weights themselves break the tie.
    return pattern.select(np.abs(theta) + np.float32(1e-6) * np.abs(scaled))


def ridge_support(weight: Array, matrix: Array, pattern: Pattern) -> Array:
    """The mask of the largest |θ|, θ = W H (H + μI)⁻¹ with H scaled to unit diagonal: what the data do not speak for
    shrinks."""
    scaled, likeness = _scaled(weight, matrix)
    damped = likeness + np.float32(RIDGE) * np.eye(len(likeness), dtype=np.float32)
    shrunk = np.linalg.solve(damped, likeness @ scaled.T)
    return pattern.select(np.abs(shrunk.T))


def _scaled(weight: Array, matrix: Array) -> tuple[Array, Array]:
    scale = np.sqrt(np.diagonal(matrix))
    return (weight * scale).astype(np.float32), (matrix / scale / scale[:, None]).astype(np.float32)


def _steps(scaled: Array, likeness: Array) -> list[tuple[float, Array]]:
    pull = scaled @ likeness
    largest = float(np.abs(pull).max(initial=0.0))
    if largest <= 0:
        return [(0.0, scaled)]
    speed = np.float32(1.0 / _largest_eigenvalue(likeness))
    theta = np.zeros_like(scaled)
    found = []
    for step in range(STEPS):
        penalty = largest * START * FALL**step
        theta = _descend(theta, pull, likeness, speed, np.float32(penalty))
        found.append((penalty, theta))
    return found


def _descend(theta: Array, pull: Array, likeness: Array, speed: np.float32, penalty: np.float32) -> Array:
    ahead, momentum = theta, 1.0
    for _ in range(ITERATIONS):
        moved = ahead + speed * (pull - ahead @ likeness)
        after = np.sign(moved) * np.maximum(np.abs(moved) - speed * penalty, np.float32(0))
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + np.float32((momentum - 1) / following) * (after - theta)
        theta, momentum = after, following
    return theta


def _largest_eigenvalue(likeness: Array) -> float:
    """By the power method, and a little more, for it comes from below."""
    vector = np.ones(len(likeness), np.float32) / np.float32(np.sqrt(len(likeness)))
    length = 1.0
    for _ in range(30):
        image = likeness @ vector
        length = float(np.linalg.norm(image))
        if length <= 0:
            return 1.0
        vector = image / np.float32(length)
    return 1.05 * length
