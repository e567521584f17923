"""Codes of 1, 2, 4 or 8 bits in bytes, the first code in the lowest bits; pure functions of arrays."""

from __future__ import annotations

import numpy as np

from tidemill.core.tensor import Array

WIDTHS = (1, 2, 4, 8)


def width_for(levels: int) -> int:
    """The fewest of 1, 2, 4 and 8 bits that tell `levels` codes apart."""
    for bits in WIDTHS:
        if levels <= 2**bits:
            return bits
    raise ValueError(f"{levels} levels do not fit a code of 8 bits")


def pack(codes: Array, bits: int) -> Array:
    """uint8 [..., ceil(n * bits / 8)] of codes [..., n] below 2**bits; what is missing in the last byte is zero."""
    each = 8 // bits
    missing = -codes.shape[-1] % each
    if missing:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    parts = codes.astype(np.uint8, copy=False).reshape(*codes.shape[:-1], -1, each)
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for at in range(each):
        packed |= parts[..., at] << np.uint8(bits * at)
    return packed


def unpack(packed: Array, bits: int, count: int) -> Array:
    """The codes that `pack` was given, uint8 [..., count]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return np.asarray(parts.reshape(*packed.shape[:-1], -1)[..., :count], np.uint8)


def codes_in_a_byte(bits: int) -> Array:
    """uint8 [256, 8 / bits]: the codes that each value of a byte holds."""
    return unpack(np.arange(256, dtype=np.uint8)[:, None], bits, 8 // bits)
