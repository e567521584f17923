"""int8 weights of one scale a row, each weight's rounding error made up for by those not yet rounded; pure.

Frantar and others, "GPTQ" (2022), for the one grid that int8 kernels take: no zero points, nothing per block.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tidemill.compress.hessian import Hessian
from tidemill.core.tensor import Array

TOGETHER: Final = 128
"""Columns whose errors reach the columns after them in one matrix product."""


def row_scales(weight: Array, bits: int, rows_alike: bool = False) -> Array:
    """float64 [out]: the widest weight of a row is the last code; of all rows alike, where kernels take one scale."""
    widest = np.abs(weight.astype(np.float64)).max(axis=1)
    if rows_alike:
        widest = np.full_like(widest, widest.max(initial=0.0))
    # As float32 keeps them, since that is what the engine multiplies by.
    scales: Array = np.maximum(widest / (2 ** (bits - 1) - 1), 1e-30).astype(np.float32).astype(np.float64)
    return scales


def nearest(weight: Array, scales: Array, bits: int) -> Array:
    """int8 codes [out, in] without regard to any data."""
    top = 2 ** (bits - 1) - 1
    return np.clip(np.rint(weight / scales[:, None]), -top, top).astype(np.int8)


def compensated(weight: Array, scales: Array, bits: int, hessian: Hessian) -> Array:
    """int8 codes [out, in] that lose less of W x than `nearest`, inputs with the most energy first."""
    top = 2 ** (bits - 1) - 1
    order = np.argsort(-np.diagonal(hessian.matrix), kind="stable")
    upper = hessian.upper(order)
    left = weight.astype(np.float64)[:, order]
    codes = np.empty_like(left)
    columns = left.shape[1]
    for start in range(0, columns, TOGETHER):
        stop = min(start + TOGETHER, columns)
        errors = np.empty((len(left), stop - start))
        for at in range(start, stop):
            codes[:, at] = np.clip(np.rint(left[:, at] / scales), -top, top)
            error = (left[:, at] - codes[:, at] * scales) / upper[at, at]
            left[:, at:stop] -= error[:, None] * upper[at, at:stop]
            errors[:, at - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    found = np.empty(codes.shape, np.int8)
    found[:, order] = codes
    return found
