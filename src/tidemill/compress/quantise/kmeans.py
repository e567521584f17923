"""`kmeans`: weights take the values of a small codebook, per tensor or per channel; a worker's process.

Clusters weighted by H's diagonal, codes by compensation and by learned rounding, and the values anew by least squares
given H after each sweep of coordinate descent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Codebook
from tidemill.compress.hessian import DAMPING
from tidemill.compress.method import Method, Option
from tidemill.compress.quantise.anneal import annealed
from tidemill.compress.quantise.book import Book, lloyd
from tidemill.compress.quantise.descend import compensated, descended
from tidemill.compress.quantise.sight import Sight, look
from tidemill.compress.quantise.uniform import ROWS_MAX
from tidemill.compress.task import LayerResult, LayerTask
from tidemill.core.tensor import Array

OPTIONS = {
    "values": Option(int, 16, "values of a codebook", 2, 256),
    "per": Option(str, "channel", "what has a codebook of its own", choices=("channel", "tensor")),
    "sweeps": Option(int, 4, "rounds of coordinate descent and refitting", 0, 64),
    "steps": Option(int, 200, "steps of learned rounding; 0 leaves it out", 0, 10_000),
    "damping": Option(float, DAMPING, "added to H's diagonal, as a share of its mean", 0.0, 10.0),
}


@dataclass(frozen=True, slots=True)
class Kmeans:
    """Gives a `Codebook`; see `OPTIONS`."""

    def solve(self, task: LayerTask) -> LayerResult:
        given = METHOD.settle(task.options)
        sight = look(task, damping=given["damping"])
        levels = min(given["values"], task.weight.size)
        if given["per"] == "tensor":
            return sight.result(_best(sight, slice(None), levels, given["sweeps"], given["steps"], by_row=False))
        parts = [
            _best(sight, slice(at, at + ROWS_MAX), min(levels, task.weight.shape[1]), given["sweeps"], given["steps"],
                  by_row=True)
            for at in range(0, len(task.weight), ROWS_MAX)
        ]  # fmt: skip
        codes, values = (np.concatenate(each) for each in zip(*((p.codes, p.values) for p in parts), strict=True))
        return sight.result(Codebook(codes, values))


def _best(sight: Sight, rows: slice, levels: int, sweeps: int, steps: int, *, by_row: bool) -> Codebook:
    """Of plain k-means, compensated and learned codes the best, row by row where rows have their own values."""
    target, matrix = sight.target[rows], sight.hessian.matrix
    tries = [_plain(sight.task.weight[rows], levels, by_row=by_row)]
    start = lloyd(target, np.diagonal(matrix), levels, by_row=by_row)
    if sight.diagonal:
        tries.append((start, start.all_codes(target)))
    else:
        book = start.copy()
        codes = compensated(target, sight.hessian, book)
        tries.append((book, descended(target, matrix, book, codes, sweeps)))
        if steps:
            # The values as the compensated weights like them: a better ladder than the clusters of the weights.
            learned = book.copy()
            codes = annealed(target, matrix, learned, steps)
            tries.append((learned, descended(target, matrix, learned, codes, max(sweeps, 1))))
    best, best_codes = tries[0][0].stored(), tries[0][1]
    least = sight.losses(best.form(best_codes).decode(), rows)
    for found, found_codes in tries[1:]:
        stored = found.stored()
        losses = sight.losses(stored.form(found_codes).decode(), rows)
        better = losses < least if by_row else np.full(len(losses), losses.sum() < least.sum())
        if by_row:
            best = Book(np.where(better[:, None], stored.rungs, best.rungs), best.block)
        elif better.all():
            best = stored
        best_codes = np.where(better[:, None], found_codes, best_codes)
        least = np.where(better, losses, least)
    return best.form(best_codes)


def _plain(weight: Array, levels: int, *, by_row: bool) -> tuple[Book, Array]:
    book = lloyd(weight, np.ones(weight.shape[1]), levels, by_row=by_row)
    return book, book.all_codes(weight)


METHOD = Method("kmeans", "weights from small codebooks, fitted to the layer's output", OPTIONS, Kmeans())
