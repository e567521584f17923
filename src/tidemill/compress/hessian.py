"""The second-order picture of one layer, H = E[x xᵀ], made safe to invert; runs wherever a layer is solved.

For a layer's output error tr(ΔW H ΔWᵀ) the Hessian of every row is 2H: `gptq` and `laplace` read it here alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.task import LayerTask, Moments
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

DAMPING = 0.01
DAMPING_MIN = 1e-8  # less would leave a singular H's inverse to rounding errors
# Each try damps ten times more; the last is ten thousand times the first, where H is all but the identity.
TRIES_MAX = 5
MORE_DATA = "more calibration data would say more"
"""How a note ends that tells of too few rows."""
SINGULAR = "H is singular"


@dataclass(frozen=True, slots=True, eq=False)
class Hessian:
    """`matrix` is float64 [K, K], symmetric, positive definite: H + λI. `damping` is λ as a share of H's mean diagonal.
    `rank` is H's own, before damping. `dead` [K] marks inputs that were never anything but zero (centred: that never
    varied): the data say nothing about their weights. `notes` are sentences for the report."""

    matrix: Array
    damping: float
    rank: int
    dead: Array
    notes: tuple[str, ...]

    def inverse(self) -> Array:
        """(H + λI)⁻¹, float64 [K, K]."""
        upper = self.upper()
        return np.asarray(upper.T @ upper)

    def upper(self, order: Array | None = None) -> Array:
        """The upper triangular U with UᵀU = (H + λI)⁻¹, its columns taken in `order`: row j of U holds how the inputs
        after j make up for an error at j (Frantar et al., GPTQ, 2022)."""
        matrix = self.matrix if order is None else self.matrix[np.ix_(order, order)]
        return _upper(matrix)


def hessian(moments: Moments, damping: float = DAMPING, *, centred: bool = False) -> Hessian:
    """H of these moments with `damping` (a share of its mean diagonal) added, more where that is not enough.

    `centred` takes the mean out (H = Cov[x]): right where a bias makes up for what the layer loses on average.
    Raises `RefusedLayer` for moments that are not finite.
    """
    second = np.asarray(moments.second, np.float64)
    if not (np.isfinite(second).all() and np.isfinite(moments.mean).all()):
        raise RefusedLayer("the layer's inputs are not all finite; look for NaN or infinity in the calibration data")
    if centred:
        mean = np.asarray(moments.mean, np.float64)
        second = second - np.outer(mean, mean)
    second = (second + second.T) / 2
    size = len(second)
    diagonal = np.clip(np.diagonal(second), 0.0, None)
    dead = diagonal <= 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300)
    scale = float(diagonal.mean()) if size else 0.0
    if scale <= 0:
        note = "the calibration data give this layer nothing but constant or zero inputs: all weights count alike"
        return Hessian(np.eye(size), 1.0, 0, dead, (note,))
    rank = _rank(second, moments, centred)
    notes = []
    if rank < size:
        if moments.count < 2 * size:
            notes.append(f"{moments.count} rows give H rank {rank} of {size}: {MORE_DATA}")
        else:
            notes.append(f"the inputs lie in {rank} of {size} dimensions (the rank of H), whatever the data")
    if dead.any():
        notes.append(f"{int(dead.sum())} of {size} inputs never vary in the calibration data")
    share = max(damping, DAMPING_MIN)
    for _ in range(TRIES_MAX):
        matrix = second + share * scale * np.eye(size)
        if rank < size and not _definite(matrix):
            share *= 10
            continue
        if share > damping and rank < size:
            notes.append(f"{SINGULAR}: damped by {share:.2g} of its mean diagonal instead of {damping:.2g}")
        return Hessian(matrix, share, rank, dead, tuple(notes))
    raise RefusedLayer(
        f"H cannot be factorised even with {share / 10:.2g} of its mean diagonal added; it is not a "
        "matrix of second moments: check how it was captured"
    )


def check(task: LayerTask) -> None:
    """Raises `RefusedLayer` for weights or a bias that are not finite, or shapes that do not fit."""
    if task.weight.ndim != 2 or 0 in task.weight.shape:
        raise RefusedLayer(f"weights of shape {list(task.weight.shape)} are no matrix that can be compressed")
    if not np.isfinite(task.weight).all() or (task.bias is not None and not np.isfinite(task.bias).all()):
        raise RefusedLayer("the layer's weights are not all finite; the model is damaged, or was trained so")
    if task.fit.second.shape != (task.weight.shape[1],) * 2:
        raise RefusedLayer(f"moments of {len(task.fit.second)} inputs do not fit weights of {task.weight.shape[1]}")


def _upper(matrix: Array) -> Array:
    # H = R Rᵀ with R upper (a Cholesky factor read backwards), so H⁻¹ = R⁻ᵀR⁻¹: better than factorising H⁻¹.
    flipped = np.linalg.cholesky(matrix[::-1, ::-1])[::-1, ::-1]
    return np.triu(np.linalg.inv(flipped))


def _rank(second: Array, moments: Moments, centred: bool) -> int:
    """In so many dimensions the inputs lie, as far as float32 can tell: the products that were added up are of it, so
    what is smaller than their rounding, next to each input's own size, is no dimension."""
    size = len(second)
    widths = np.sqrt(np.clip(np.diagonal(np.asarray(moments.second, np.float64)), 0.0, None))
    alike = second / np.outer(*(np.where(widths > 0, widths, 1.0),) * 2)
    least = 4 * np.sqrt(size) * float(np.finfo(np.float32).eps)
    # An embedding's H is the identity by definition, however many rows there were.
    given = np.array_equal(moments.second, np.eye(size))
    most = size if given else min(size, max(moments.count - centred, 0))
    # Of full rank if every eigenvalue is above `least`: a Cholesky factor tells, in a tenth of the eigenvalues' time.
    if most == size and _definite(alike - least * np.eye(size)):
        return size
    return min(int((np.linalg.eigvalsh(alike) > least).sum()), most)


def _definite(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
