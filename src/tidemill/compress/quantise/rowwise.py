"""One layer in int8: a scale for each row of weights, whose rounding errors make up for one another; pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.compress.forms import Activation, Uniform
from tidemill.compress.hessian import SINGULAR, hessian
from tidemill.compress.moments import Captured
from tidemill.compress.quantise import rounding
from tidemill.compress.solving import bias_after
from tidemill.compress.task import LayerResult, Moments
from tidemill.core.tensor import Array


def solve(
    weight: Array,
    bias: Array | None,
    captured: Sequence[Captured],
    grid: Activation,
    *,
    bits: int = 8,
    alike: bool = False,
    compensate: bool = True,
    written: Activation | None = None,
) -> LayerResult:
    """Of weights float32 [groups · out, in] with the moments of each group's inputs, which `grid` rounds.

    What rounding makes of the inputs counts as noise that has nothing to do with them. `alike` gives all rows one
    scale; `written` is what the result says of the inputs, where that is not `grid`. Raises `RefusedLayer`.
    """
    scales = rounding.row_scales(weight, bits, alike)
    codes: list[Array] = []
    notes: list[str] = []
    damping = 0.0
    parts = np.split(weight, len(captured))
    for part, steps, each in zip(parts, np.split(scales, len(captured)), captured, strict=True):
        if compensate:
            found = hessian(_seen(each.fit, grid, centred=bias is not None))
            codes.append(rounding.compensated(part, steps, bits, found))
            # The noise is of full rank, and would hide that the rows were few; what was done about H is of H with it.
            said = hessian(each.fit, centred=bias is not None).notes
            said = tuple(note for note in said if not note.startswith(SINGULAR))
            said += tuple(note for note in found.notes if note.startswith(SINGULAR))
            notes += [note for note in said if note not in notes]
            damping = max(damping, found.damping)
        else:
            codes.append(rounding.nearest(part, steps, bits))
    form = uniform(np.concatenate(codes), scales)
    decoded = np.split(form.decode(), len(captured))
    if bias is not None:
        # The inputs' own error is left out: where a few tokens are cut, the mean would move all the others.
        biases = np.split(bias, len(captured))
        each_of = zip(parts, biases, decoded, (each.fit.mean for each in captured), strict=True)
        bias = np.concatenate([bias_after(*part) for part in each_of])
    fit, held = (
        _lost(parts, decoded, [each.fit for each in captured], moments, grid, centred=bias is not None)
        for moments in ([each.fit for each in captured], [each.held for each in captured])
    )
    return LayerResult(form, bias, written or grid, fit, held, damping, tuple(notes))


def uniform(codes: Array, scales: Array) -> Uniform:
    """int8 codes and a scale for each row."""
    middle = np.full((len(codes), 1), 128, np.uint8)
    return Uniform((codes.astype(np.int16) + 128).astype(np.uint8), scales.astype(np.float32)[:, None], middle, 8)


def _noise(moments: Moments, grid: Activation) -> float:
    """E(x̂ − x)² of one input, all of them alike."""
    edges = np.asarray(moments.edges, np.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    counts = np.asarray(moments.histogram, np.float64)
    total = counts.sum()
    return float(counts @ np.square(grid.apply(centres) - centres)) / total if total else 0.0


def _seen(moments: Moments, grid: Activation, *, centred: bool) -> Moments:
    """Of x̂: around its mean where a bias takes that up."""
    second = _second(moments, moments.mean, centred=centred) + _noise(moments, grid) * np.eye(len(moments.mean))
    nothing = np.zeros(len(moments.mean))
    return Moments(moments.count, second, nothing, moments.low, moments.high, moments.histogram, moments.edges)


def _second(moments: Moments, centre: Array, *, centred: bool) -> Array:
    second = np.asarray(moments.second, np.float64)
    if not centred:
        return second
    across = np.outer(np.asarray(moments.mean, np.float64), np.asarray(centre, np.float64))
    return np.asarray(second - across - across.T + np.outer(centre, centre))


def _lost(
    weights: Sequence[Array],
    decoded: Sequence[Array],
    fit: Sequence[Moments],
    moments: Sequence[Moments],
    grid: Activation,
    *,
    centred: bool,
) -> float:
    """E‖W x − Ŵ x̂‖² / E‖W x‖², around the means of `fit` where a bias takes them up; 0 where W x never varies."""
    lost = whole = 0.0
    for of, by, learned, seen in zip(weights, decoded, fit, moments, strict=True):
        second = _second(seen, learned.mean, centred=centred)
        away = of.astype(np.float64) - by
        lost += float(np.einsum("ij,ij->", away @ second, away))
        lost += _noise(seen, grid) * float(np.square(by, dtype=np.float64).sum())
        whole += float(np.einsum("ij,ij->", of.astype(np.float64) @ second, of))
    return max(lost, 0.0) / whole if whole > 0 else 0.0
