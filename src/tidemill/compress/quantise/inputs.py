"""Few values for a layer's inputs, chosen from their histogram; runs wherever a layer is solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Activation
from tidemill.compress.task import Moments
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

SHRINKS = np.linspace(1.0, 0.02, 99)


@dataclass(frozen=True, slots=True)
class Rounding:
    """An activation, and what it does to an input on the whole: x̂ ≈ gain · x + shift + noise, uncorrelated with x,
    of variance `noise` (least squares over all features together)."""

    activation: Activation
    gain: float
    shift: float
    noise: float


def learned(moments: Moments, bits: int, within: float | None = None) -> Rounding:
    """The step and offset with the least squared error expected of these inputs. Up to 2 bits the offset may lie
    between codes; with `within`, all values lie in [-within, within].

    Raises `RefusedLayer` for a histogram that counts nothing.
    """
    counts = np.asarray(moments.histogram, np.float64)
    edges = np.asarray(moments.edges, np.float64)
    if counts.sum() <= 0 or not np.isfinite(edges).all():
        raise RefusedLayer("nothing is known of how the layer's inputs are spread, so they cannot be quantised")
    centres = (edges[1:] + edges[:-1]) / 2
    used = counts > 0
    centres, counts = centres[used], counts[used] / counts.sum()
    candidates = _candidates(centres, counts, bits, within)
    errors = [float(counts @ np.square(each.apply(centres) - centres)) for each in candidates]
    best = candidates[int(np.argmin(errors))]
    return _effect(best, centres, counts)


def _candidates(centres: Array, counts: Array, bits: int, within: float | None) -> list[Activation]:
    top = 2**bits - 1
    low, high = float(centres[0]), float(centres[-1])
    found = []
    for shrink in SHRINKS:
        if bits <= 2:
            # Around the mean, and (for inputs of one sign, as after Relu or Gelu) from their least value up.
            middle = float(counts @ centres)
            spread = max(high - middle, middle - low) * shrink
            ends = [(middle - spread, middle + spread), (low, low + (high - low) * shrink)]
        else:
            ends = [
                (min(low * shrink, 0.0), max(high * shrink, 0.0)),
                (min(low, 0.0), max(high * shrink, 0.0)),
                (min(low * shrink, 0.0), max(high, 0.0)),
            ]
        for start, end in ends:
            if within is not None:
                start, end = max(start, -within), min(end, within)  # noqa: PLW2901
            scale = float(np.float32((end - start) / top))
            if scale <= 0:
                continue
            zero = -start / scale
            found.append(Activation(scale, float(np.float32(zero)) if bits <= 2 else round(zero), bits))
    if not found:
        reach = within or max(abs(low), abs(high)) or 1.0
        found.append(Activation(float(np.float32(2 * reach / top)), top / 2 if bits <= 2 else 2 ** (bits - 1), bits))
    return found


def _effect(activation: Activation, centres: Array, counts: Array) -> Rounding:
    rounded = activation.apply(centres).astype(np.float64)
    mean, mean_rounded = float(counts @ centres), float(counts @ rounded)
    variance = float(counts @ np.square(centres - mean))
    if variance <= 0:
        return Rounding(activation, 1.0, mean_rounded - mean, 0.0)
    gain = float(counts @ ((centres - mean) * (rounded - mean_rounded))) / variance
    noise = float(counts @ np.square(rounded - mean_rounded)) - gain * gain * variance
    return Rounding(activation, gain, mean_rounded - gain * mean, max(noise, 0.0))
