"""Arbitrary values put onto evenly spaced ones, as fine as 8 bits allow; pure functions of arrays.

A kernel for arbitrary values does not exist in the engines; kernels for `scale * (code - zero point)` do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Codebook, Planes, Uniform
from tidemill.core.tensor import Array

EXACT = 1e-5
"""Values that lie within this share of their range from a coarser grid are on it."""
NOISE = 1e-13
STRETCHES = np.linspace(1.0, 1.12, 25)
"""Slightly wider steps than need be, among which some meet the values better."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Weights [out, in] that take few values: `values[out, block, code]`, float32, `block` columns to a block."""

    codes: Array
    values: Array
    block: int

    @property
    def levels(self) -> int:
        return int(self.values.shape[-1])


def table_of(form: Codebook | Planes) -> Table | None:
    """None for planes whose blocks differ, or that have more than 256 values together."""
    if isinstance(form, Codebook):
        return Table(form.codes, np.broadcast_to(form.values[:, None], (len(form.codes), 1, form.values.shape[1])), 0)
    block = form.planes[0].block
    if any(plane.block != block for plane in form.planes):
        return None
    codes: Array = np.zeros(form.planes[0].codes.shape, np.int64)
    values: Array = np.zeros((*form.planes[0].scales.shape, 1), np.float32)
    for plane in form.planes:
        used, each = np.unique(plane.codes, return_inverse=True)
        if values.shape[-1] * len(used) > 256:
            return None
        codes = codes + each.reshape(codes.shape) * values.shape[-1]
        own = (used.astype(np.float32) - plane.zero_points.astype(np.float32)[..., None]) * plane.scales[..., None]
        values = (own[..., :, None] + values[..., None, :]).reshape(*values.shape[:-1], -1).astype(np.float32)
    return Table(codes.astype(np.uint8), values, block)


def snap(values: Array, bits: int) -> tuple[Array, Array, Array, float]:
    """(codes, scales, zero points, largest error as a share of the range) of the grid of `bits` that meets each row's
    values [..., levels] best."""
    top = 2**bits - 1
    low = np.minimum(values.min(-1), 0.0).astype(np.float64)
    high = np.maximum(values.max(-1), 0.0).astype(np.float64)
    span = np.where(high > low, high - low, 1.0)
    best = np.full(values.shape[:-1], np.inf)
    scales, zeros = np.ones(values.shape[:-1]), np.zeros(values.shape[:-1])
    middle = np.clip(np.rint(-low / span * top), 0, top)
    zero_points = [np.full_like(middle, z) for z in range(top + 1)] if bits <= 4 else [middle]
    for zero in zero_points:
        # The smallest step that reaches both ends from this zero point.
        with np.errstate(divide="ignore", invalid="ignore"):
            down = np.where(low < 0, -low / zero, 0.0)
            up = np.where(high > 0, high / (top - zero), 0.0)
        least = np.maximum(down, up)
        reachable = np.isfinite(least) & (least > 0)
        for stretch in STRETCHES:
            step = np.where(reachable, least * stretch, 1.0)
            error = np.square(np.rint(values / step[..., None]) * step[..., None] - values).max(-1)
            # Not for less than rounding noise, so that like rows get like codes.
            better = reachable & (error + NOISE * span**2 < best)
            best, scales = np.where(better, error, best), np.where(better, step, scales)
            zeros = np.where(better, zero, zeros)
    scales = scales.astype(np.float32)
    codes = np.clip(np.rint(values / scales[..., None]) + zeros[..., None], 0, top)
    off = np.abs((codes - zeros[..., None]) * scales[..., None] - values).max(-1) / span
    return codes.astype(np.uint8), scales, zeros.astype(np.uint8), float(off.max(initial=0.0))


def snapped(values: Array) -> tuple[Array, Array, Array, int]:
    """(codes, scales, zero points, bits) on the coarsest grid of 2, 4 or 8 bits that holds `values` exactly, else on
    that of 8 bits."""
    for bits in (2, 4):
        if values.shape[-1] <= 2**bits:
            codes, scales, zeros, error = snap(values, bits)
            if error <= EXACT:
                return codes, scales, zeros, bits
    codes, scales, zeros, _ = snap(values, 8)
    return codes, scales, zeros, 8


def signed(values: Array) -> tuple[Array, Array]:
    """(int8 codes, scales) of the grid around zero that meets each row's values [..., levels] best."""
    least = np.abs(values).max(-1).astype(np.float64) / 127
    least = np.where(least > 0, least, 1.0)
    best, scales = np.full(least.shape, np.inf), least
    for stretch in STRETCHES:
        step = least * stretch
        error = np.square(np.rint(values / step[..., None]) * step[..., None] - values).sum(-1)
        scales, best = np.where(error < best, step, scales), np.minimum(error, best)
    scales = scales.astype(np.float32)
    return np.clip(np.rint(values / scales[..., None]), -127, 127).astype(np.int8), scales


def whole(form: Uniform) -> bool:
    """Whether all zero points are codes themselves, as kernels want them."""
    zeros = form.zero_points
    return bool((zeros == np.rint(zeros)).all() and zeros.min() >= 0 and zeros.max() < 2**form.bits)


def values_of(form: Uniform) -> Table:
    used, codes = np.unique(form.codes, return_inverse=True)
    centred = used.astype(np.float32) - form.zero_points.astype(np.float32)[..., None]
    values = (centred * form.scales[..., None]).astype(np.float32)
    return Table(codes.reshape(form.codes.shape).astype(np.uint8), values, form.block)
