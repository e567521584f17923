"""The solves behind second-order pruning, pure functions of weights and H; run wherever a layer is solved.

The loss of Ŵ is tr((W − Ŵ) H (W − Ŵ)ᵀ) with H positive definite: rows do not know each other, so each row is a least
squares problem on a support of its own. Finding the supports is the hard part (`sweep`, `eliminate`,
`alternate`); once they stand, `refit` is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, lapack

from tidemill.core.tensor import Array

BLOCK = 128
# Above this many multiplications exact normal equations give way to conjugate gradients.
EXACT_MULTIPLICATIONS_MAX = 4e11
ROUNDS = 60
PENALTY_LOW = 0.03
PENALTY_HIGH = 1.0
CONJUGATE_ROUNDS_MAX = 300
CONJUGATE_TOLERANCE = 1e-7
CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a mask must obey: the share `sparsity` of all weights is zero, or, where `group` is given, at most `kept` of
    every `group` neighbours in a row are not (the last group of a row may be shorter)."""

    sparsity: float = 0.5
    kept: int = 0
    group: int = 0

    def select(self, scores: Array) -> Array:
        """True for the weights to keep: those of the highest scores that the pattern allows. Ties go to the first."""
        if not self.group:
            keep = scores.size - round(self.sparsity * scores.size)
            mask = np.zeros(scores.size, np.bool_)
            mask[np.argsort(-scores, axis=None, kind="stable")[:keep]] = True
            return mask.reshape(scores.shape)
        rows, columns = scores.shape
        groups = -(-columns // self.group)
        padded = np.full((rows, groups * self.group), -np.inf)
        padded[:, :columns] = scores
        order = np.argsort(-padded.reshape(rows, groups, self.group), axis=2, kind="stable")
        mask = np.zeros(order.shape, np.bool_)
        np.put_along_axis(mask, order[:, :, : self.kept], True, axis=2)
        return mask.reshape(rows, -1)[:, :columns]


def loss(weight: Array, pruned: Array, matrix: Array) -> Array:
    """Each row's loss, [out]."""
    difference = weight - pruned
    return np.asarray(np.einsum("ij,ij->i", difference @ matrix, difference))


def saliency(weight: Array, inverse: Array) -> Array:
    """What dropping each weight alone costs after the others made up for it: w² / 2[H⁻¹]ᵢᵢ.

    Hassibi and Stork, Optimal Brain Surgeon (1993), equation 5.
    """
    return np.asarray(weight**2 / (2 * np.diagonal(inverse)))


def sweep(weight: Array, upper: Array, pattern: Pattern, block: int = BLOCK) -> tuple[Array, Array]:
    """A mask, and the weights made to fit it, by one pass over the columns: each block's mask is chosen
    when the pass reaches it, and what its zeros lose is made up for in the columns to come (Frantar and Alistarh,
    SparseGPT, 2023, algorithm 1). An unstructured share is met in every block.

    `upper` is `Hessian.upper()`.
    """
    left = np.array(weight, np.float64)
    mask = np.ones(left.shape, np.bool_)
    if pattern.group:
        block = max(1, block // pattern.group) * pattern.group
    pivots = np.diagonal(upper)
    for start in range(0, left.shape[1], block):
        stop = min(start + block, left.shape[1])
        mask[:, start:stop] = pattern.select((left[:, start:stop] / pivots[start:stop]) ** 2)
        errors = np.zeros((len(left), stop - start))
        for column in range(start, stop):
            error = np.where(mask[:, column], 0.0, left[:, column]) / pivots[column]
            left[:, column:stop] -= np.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return mask, np.where(mask, left, 0.0)


def eliminate(weight: Array, inverse: Array, pattern: Pattern) -> Array:
    """A mask by dropping, in every row, the weight of least saliency again and again, with the others made to fit after
    each; then the pattern is met by what each drop cost (Frantar, Singh and Alistarh, Optimal Brain Compression, 2022).

    K steps of [K, K] for each row: for small layers.
    """
    rows, columns = weight.shape
    costs = np.zeros(weight.shape)
    chunk = max(1, CHUNK_BYTES // (columns * columns * 8))
    for start in range(0, rows, chunk):
        costs[start : start + chunk] = _costs(weight[start : start + chunk], inverse, pattern)
    return pattern.select(costs)


def _costs(weight: Array, inverse: Array, pattern: Pattern) -> Array:
    """When each weight falls, what it costs by then: increasing along a row's drops, so that a threshold over all rows
    keeps what fell last. For N:M a group that is down to its number is left out of the search (cost inf)."""
    rows, columns = weight.shape
    left = np.array(weight, np.float64)
    inverses = np.repeat(inverse[None], rows, axis=0)
    alive = np.ones((rows, columns), np.bool_)
    costs = np.full((rows, columns), np.inf)
    each = np.arange(rows)
    paid = np.zeros(rows)
    room = None
    if pattern.group:
        groups = np.arange(columns) // pattern.group
        room = np.repeat(np.maximum(np.bincount(groups) - pattern.kept, 0)[None], rows, axis=0)
        steps = int(room[0].sum())
    else:
        steps = columns
    for _ in range(steps):
        pivots = np.einsum("rii->ri", inverses)
        score = np.where(alive, left**2 / np.where(alive, pivots, 1.0), np.inf)
        if room is not None:
            score = np.where(room[:, groups] > 0, score, np.inf)
        falls = np.argmin(score, axis=1)
        paid = np.maximum(paid, score[each, falls])
        costs[each, falls] = paid
        alive[each, falls] = False
        if room is not None:
            room[each, groups[falls]] -= 1
        line = inverses[each, falls].copy()
        pivot = line[each, falls]
        left -= line * (left[each, falls] / pivot)[:, None]
        left[each, falls] = 0.0
        inverses -= line[:, :, None] * (line / pivot[:, None])[:, None, :]
    return costs


def alternate(weight: Array, matrix: Array, pattern: Pattern, rounds: int = ROUNDS) -> Array:
    """A mask by alternating directions: a ridge solve towards a pruned copy, the copy pruned anew, the difference kept
    in the dual, with H scaled to unit diagonal (Boža, Fast and effective weight update for pruned large language
    models, 2024).

    Two things differ, and bring the loss to about that of `eliminate` at a hundredth of its cost: the penalty grows
    from `PENALTY_LOW` to `PENALTY_HIGH`, so that early rounds move weights far and late ones settle; and the pattern is
    chosen anew to the end, its sparsity growing over the first half of the rounds. float32 inside.
    """
    scale = np.sqrt(np.diagonal(matrix))
    scaled = matrix / scale
    scaled /= scale[:, None]
    # Column by column, as LAPACK wants it, and in its own place: a copy of the widest layer's is 19 MB a worker.
    values, vectors = eigh(scaled.T, overwrite_a=True, check_finite=False, driver="evd")
    values, vectors = values.astype(np.float32), vectors.astype(np.float32)
    del scaled
    target = (weight * scale).astype(np.float32)
    pull = (target @ vectors) * values
    now, dual = target, np.zeros_like(target)
    kept = np.ones(weight.shape, np.bool_)
    penalty = np.float32(PENALTY_LOW)
    for turn in range(rounds):
        before, penalty = penalty, np.float32(PENALTY_LOW * (PENALTY_HIGH / PENALTY_LOW) ** (turn / max(rounds - 1, 1)))
        dual *= before / penalty
        towards = now + dual
        part = min(1.0, 2 * (turn + 1) / rounds)
        asked = pattern if pattern.group else Pattern(pattern.sparsity * (1 - (1 - part) ** 3))
        kept = asked.select(towards**2)
        copy = np.where(kept, towards, np.float32(0))
        dual = towards - copy
        now = ((pull + penalty * ((copy - dual) @ vectors)) / (values + penalty)) @ vectors.T
    return kept


def refit(weight: Array, mask: Array, matrix: Array) -> Array:
    """The Ŵ of least loss that is zero wherever `mask` is False: exact for each row,
    H[S,S] ŵ[S] = H[S,:] w. Large layers go by conjugate gradients that start from `weight` cut to the mask and never
    raise the loss. float64 [out, in]."""
    target = np.asarray(weight, np.float64)
    right = target @ matrix
    kept = mask.sum(axis=1)
    if float((kept.astype(np.float64) ** 3).sum()) / 3 > EXACT_MULTIPLICATIONS_MAX:
        start = np.where(mask, target, 0.0)
        return descend(target, start, mask, matrix, CONJUGATE_ROUNDS_MAX, CONJUGATE_TOLERANCE)
    answer = np.zeros_like(target)
    for row, support in enumerate(mask):
        where = np.flatnonzero(support)
        if where.size:
            _, solved, failed = lapack.dposv(matrix[np.ix_(where, where)], right[row, where], lower=True)
            # Damping makes this all but impossible; then the row is merely cut.
            answer[row, where] = target[row, where] if failed else solved
    return answer


def descend(weight: Array, start: Array, mask: Array, matrix: Array, steps: int, tolerance: float = 0.0) -> Array:
    """Closer to the least loss on `mask`, from `start` (zero outside it): conjugate gradients preconditioned by H's
    diagonal, each row for itself, which never raise its loss. Ends early where every row's preconditioned residual has
    fallen to `tolerance` of the first."""
    now = start
    residual = np.where(mask, (weight - now) @ matrix, 0.0)
    diagonal = np.diagonal(matrix)
    ahead = residual / diagonal
    along = ahead
    fit = np.einsum("ij,ij->i", residual, ahead)
    enough = tolerance**2 * np.maximum(fit, np.finfo(np.float64).tiny)
    for _ in range(steps):
        if tolerance and (fit <= enough).all():
            break
        image = np.where(mask, along @ matrix, 0.0)
        bend = np.einsum("ij,ij->i", along, image)
        step = np.divide(fit, bend, out=np.zeros_like(fit), where=bend > 0)
        now = now + step[:, None] * along
        residual = residual - step[:, None] * image
        ahead = residual / diagonal
        following = np.einsum("ij,ij->i", residual, ahead)
        along = ahead + np.divide(following, fit, out=np.zeros_like(fit), where=fit > 0)[:, None] * along
        fit = following
    return now
