"""Where to cut an activation's range before it is laid on 256 values; pure functions for any process."""

from __future__ import annotations

from typing import Final

import numpy as np

from tidemill.compress.forms import Activation
from tidemill.core.tensor import Array

CHOICES: Final = ("mse", "minmax", "percentile", "entropy")
PERCENTILE: Final = 99.99
SHARES: Final = tuple(np.linspace(1.0, 0.2, 41))
"""Shares of a side's range that `mse` and `entropy` try."""
CUT: Final = 6.0
"""What a square of error counts that cutting makes, in one of rounding. Rounding errs either way and is averaged out by
the layers behind; a cut takes from the same few tokens in every layer, and others look to just those."""


def choose(
    histogram: Array, edges: Array, choice: str, signed: bool = False, bits: int = 8, cut: float = CUT
) -> Activation:
    """The scale and zero point for values of this histogram, whose range is what was seen.

    `mse` takes the range of least squared error, that of values outside counted `cut` times; `entropy` the one whose
    rounded values are distributed most like the given ones (Migacz, 8-bit inference, 2017); `percentile` leaves
    `PERCENTILE` per cent inside. `signed` puts the zero point in the middle, which int8 with a zero point of 0 is. Zero
    is always a value, as padding needs it.
    """
    low, high = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)
    if not histogram.sum() or low == high:
        return laid(low, high, signed, bits)
    if choice == "minmax":
        return laid(low, high, signed, bits)
    if choice == "percentile":
        return laid(*_percentile(histogram, edges), signed, bits)
    centres = (edges[:-1] + edges[1:]) / 2
    if choice == "mse":
        return laid(*_least_squares(histogram, centres, low, high, signed, bits, cut), signed, bits)

    def worth(cut_low: float, cut_high: float) -> float:
        return _divergence(histogram, centres, laid(cut_low, cut_high, signed, bits))

    if signed:
        reach = max(-low, high)
        best = min(SHARES, key=lambda share: worth(-share * reach, share * reach))
        return laid(-best * reach, best * reach, signed, bits)
    for _ in range(2):  # one side after the other; the second round rarely changes anything
        high = min((share * high for share in SHARES), key=lambda cut: worth(low, cut))
        low = min((share * low for share in SHARES), key=lambda cut: worth(cut, high))
    return laid(low, high, signed, bits)


def laid(low: float, high: float, signed: bool = False, bits: int = 8) -> Activation:
    """All codes spread over [low, high] with 0 among their values; codes are unsigned, whatever `signed` says."""
    top = 2**bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    if signed:
        reach = max(-low, high)
        return Activation(_scale(reach / (top // 2)), top // 2 + 1, bits)
    scale = _scale((high - low) / top)
    return Activation(scale, int(np.clip(np.rint(-low / scale), 0, top)), bits)


def _scale(value: float) -> float:
    """Never so small that float32 loses it."""
    return float(np.float32(max(value, 1e-12)))


def _percentile(histogram: Array, edges: Array) -> tuple[float, float]:
    inside = np.cumsum(histogram) / histogram.sum()
    beyond = (1 - PERCENTILE / 100) / 2
    low = edges[int(np.searchsorted(inside, beyond))]
    high = edges[min(int(np.searchsorted(inside, 1 - beyond)) + 1, len(edges) - 1)]
    return float(low), float(high)


def _least_squares(
    histogram: Array, centres: Array, low: float, high: float, signed: bool, bits: int, cut: float
) -> tuple[float, float]:
    """Of all pairs of cuts the one with the least error: what lies outside is cut, and inside values are rounded, whose
    error is a twelfth of a step squared (counting that of the bins would call a range free of error of which few are
    used)."""
    shares = np.asarray(SHARES)
    if signed:
        reach = max(-low, high)
        lows, highs = -shares * reach, shares * reach
    else:
        lows, highs = (each.ravel() for each in np.meshgrid(shares * low, shares * high, indexing="ij"))
    counts = histogram.astype(np.float64)
    below = [np.concatenate([[0.0], np.cumsum(counts * centres**power)]) for power in range(3)]
    under, over = np.searchsorted(centres, lows), np.searchsorted(centres, highs, "right")

    def squares(first: Array | int, last: Array | int, end: Array) -> Array:
        none, one, two = (sums[last] - sums[first] for sums in below)
        found: Array = two - 2 * end * one + end**2 * none
        return found

    outside = squares(0, under, lows) + squares(over, len(counts), highs)
    inside = below[0][over] - below[0][under]
    error = cut * outside + inside * ((highs - lows) / (2**bits - 1)) ** 2 / 12
    best = int(np.argmin(error))
    return float(lows[best]), float(highs[best])


def _divergence(histogram: Array, centres: Array, activation: Activation) -> float:
    codes = np.clip(np.rint(centres / activation.scale) + activation.zero_point, 0, 2**activation.bits - 1).astype(int)
    share = histogram / histogram.sum()
    mass = np.bincount(codes, share, 2**activation.bits)
    bins = np.bincount(codes, histogram > 0, 2**activation.bits)
    spread = np.where(histogram > 0, mass[codes] / np.maximum(bins[codes], 1), 0)
    # What lies outside is piled on the last codes, where it is told apart from nothing: count it in full.
    there = share > 0
    kept = float(np.sum(share[there] * np.log(share[there] / np.maximum(spread[there], 1e-12))))
    low, high = (activation.scale * (code - activation.zero_point) for code in (0, 2**activation.bits - 1))
    return kept + float(np.sum(share * (np.clip(centres, low, high) != centres)))
