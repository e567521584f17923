"""Numbers in the float type that a model wants: none spills over, and no whole number is rounded where that is asked;
pure, used by both REST dialects."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from tidemill.core.errors import WrongValue
from tidemill.core.tensor import Array, TensorSpec
from tidemill.core.text import short

SHORT_VECTOR = 1024
DIGITS = {"FP16": 11, "BF16": 8, "FP32": 24, "FP64": 53}
"""Bits of the whole numbers that each float type holds, all of them."""
SQUARES = {datatype: 4.0**digits for datatype, digits in DIGITS.items()}
"""The square of the least number beyond those."""
warnings.filterwarnings("ignore", "overflow encountered in dot", RuntimeWarning)
# What spills over is found by that very overflow and told in our words; `errstate` would cost more than all the rest.


def narrowed(spec: TensorSpec, wide: Array, values: Iterable[Any] | None = None) -> Array:
    """`wide` in the float type of `spec`. With `values`, those that `wide` was made of, whole numbers must stay what
    they are. Raises `WrongValue`."""
    if wide.size <= SHORT_VECTOR and (fits := plain(spec, wide)) is not None:
        return fits
    if wide.dtype == spec.dtype:
        array = wide
        square = 0.0 if values is None else _square(array)
    else:
        with np.errstate(over="ignore"):  # what does not fit is refused below, in our words
            array = wide.astype(spec.dtype)
            square = _square(array)
        if not math.isfinite(square):
            array = _spilled(spec, wide)
    if values is not None and not square < SQUARES[spec.datatype]:
        _check_exact(spec, wide, values)
    return array


def plain(spec: TensorSpec, wide: Array) -> Array | None:
    """FP64 in the float type of `spec` where one look shows that nothing spills over and that no whole number is
    rounded, as it nearly always does; None where it takes more than a look."""
    if wide.dtype != np.float64 or not _square(wide) < SQUARES[spec.datatype]:
        return None
    return wide.astype(spec.dtype, copy=False)


def _square(array: Array) -> float:
    """No value's square is more than this; it is not finite when a value may not be. The product of a short vector with
    itself is the cheapest look at all its values."""
    if array.size <= SHORT_VECTOR:
        flat = array.ravel()
        try:
            return float(flat.dot(flat))
        except RuntimeWarning:  # where warnings are errors
            return math.inf
    largest = float(np.abs(array).max())
    return largest * largest


def _spilled(spec: TensorSpec, wide: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        array = wide.astype(spec.dtype)
        spilled = np.isinf(array.astype(np.float64)) & np.isfinite(wide)
    if spilled.any():
        raise WrongValue(f"input {spec.name!r} holds {wide[spilled][0]}, which {spec.datatype} cannot")
    return array


def _check_exact(spec: TensorSpec, wide: Array, values: Iterable[Any]) -> None:
    """A whole number is rounded when its bits, from the first that is set to the last, are too many."""
    digits = DIGITS[spec.datatype]
    if wide.dtype.kind in "iu":
        whole = np.abs(wide.ravel()).astype(np.uint64)  # right for the least INT64 too, which has no counterpart
        lowest = whole & (~whole + np.uint64(1))
        rounded = (whole // np.maximum(lowest, np.uint64(1))) >> np.uint64(digits) > 0
        inexact = wide.ravel()[rounded][:1].tolist()
    else:
        inexact = [value for value in values if type(value) is int and _width(value) > digits][:1]
    if inexact:
        raise WrongValue(
            f"input {spec.name!r} holds the whole number {short(inexact[0])}, which {spec.datatype} would round"
        )


def _width(value: int) -> int:
    return value.bit_length() - (value & -value).bit_length() + 1
