"""Named arrays as buffers of a frame and back, without copying what is large; used at both ends of a link.

Numbers travel as they lie in memory (little-endian machines on both sides). Strings travel as the lengths of all, then
their bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Final, TypeAlias

import numpy as np

from tidemill.core.tensor import DATATYPES, DTYPES, Array, Tensors
from tidemill.wire.frames import ALIGN, PADS, Buffer, FrameError

if sys.byteorder != "little":
    raise ImportError("frames hold numbers as a little-endian machine keeps them; this one is not")

TensorHead: TypeAlias = tuple[str, str, tuple[int, ...], int]
"""Name, datatype, shape, bytes without padding."""

COPIED_BYTES_MAX: Final = 32 * 1024
"""A smaller array is copied: that costs less than a view of it."""
_OBJECT: Final = np.dtype(object)
_LENGTH: Final = np.dtype("<u4")
_ENTRIES: Final = {name: (dtype, dtype.itemsize) for name, dtype in DTYPES.items()}


def pack_tensors(tensors: Tensors) -> tuple[list[TensorHead], list[Buffer], int]:
    """Heads, buffers padded to 16 bytes, and the sum of their sizes. The arrays must not change until they are sent."""
    heads: list[TensorHead] = []
    buffers: list[Buffer] = []
    total = 0
    for name, array in tensors.items():
        dtype = array.dtype
        raw: Buffer
        if dtype == _OBJECT:
            raw = _strings(array)
            size = len(raw)
        else:
            size = array.nbytes
            if size <= COPIED_BYTES_MAX or not array.flags.c_contiguous:
                raw = array.tobytes()
            else:
                raw = array.reshape(-1).view(np.uint8).data  # also of types that memoryview does not know
        heads.append((name, DATATYPES[dtype], array.shape, size))
        buffers.append(raw)
        pad = -size % ALIGN
        if pad:
            buffers.append(PADS[pad])
        total += size + pad
    return heads, buffers, total


def unpack_tensors(heads: Sequence[TensorHead], data: bytes, start: int, size: int) -> dict[str, Array]:
    """Arrays over `data`, not writable; those of strings are new. Raises `FrameError` for what does not add up."""
    tensors: dict[str, Array] = {}
    at, end = start, start + size
    for name, datatype, shape, long in heads:
        entry = _ENTRIES.get(datatype)
        if entry is None or name in tensors or long < 0 or at + long > end or (shape and min(shape) < 0):
            raise FrameError(f"a tensor {name!r} of {datatype} {list(shape)} in {long} bytes cannot be")
        dtype, width = entry
        count = prod(shape)
        if dtype is _OBJECT:
            array = _split(count, data, at, long)
        elif count * width != long:
            raise FrameError(f"tensor {name!r} has {long} bytes, {datatype} {list(shape)} wants {count * width}")
        else:
            array = np.frombuffer(data, dtype, count, at)
        try:
            tensors[name] = array if len(shape) == 1 else array.reshape(shape)
        except ValueError as error:  # more dimensions, or larger ones, than numpy has
            raise FrameError(f"tensor {name!r} has shape {list(shape)}: {error}") from error
        at += long + (-long % ALIGN)
    if at != end:
        raise FrameError(f"the payload has {size} bytes, its tensors {at - start}")
    return tensors


def _strings(array: Array) -> bytes:
    values = array.ravel().tolist()
    lengths = np.fromiter(map(len, values), _LENGTH, len(values))
    return b"".join((lengths.tobytes(), *values))


def _split(count: int, data: bytes, at: int, long: int) -> Array:
    if count * _LENGTH.itemsize > long:
        raise FrameError(f"{count} strings cannot be in {long} bytes")
    lengths = np.frombuffer(data, _LENGTH, count, at).tolist()
    first = at + count * _LENGTH.itemsize
    marks = list(accumulate(lengths, initial=first))
    if marks[-1] != at + long:
        raise FrameError(f"the strings have {marks[-1] - first} bytes, {at + long - first} are there")
    found = np.empty(count, _OBJECT)
    found[:] = [data[low:high] for low, high in pairwise(marks)]
    return found
