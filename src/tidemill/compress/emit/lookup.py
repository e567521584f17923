"""Subgraphs of standard operators that turn packed bytes into codes or values; runs where graphs do.

All their inputs are constants, so onnxruntime carries them out once, while it loads the model, and keeps the result.
"""

from __future__ import annotations

import numpy as np

from tidemill.compress.emit.packing import codes_in_a_byte, pack
from tidemill.compress.emit.patch import Patch
from tidemill.core.tensor import Array

OPSET = 11
INT32 = 6
"""What Gather takes for indices."""


def widened(patch: Patch, codes: Array, stored: int, width: int, used: Array, shape: tuple[int, ...]) -> str:
    """Codes [...] of `stored` bits, packed, as packed codes `used[code]` of `width` bits, in `shape`: byte by byte."""
    patch.need(OPSET, f"a form of {stored} bits on disk")
    table = pack(used[np.minimum(codes_in_a_byte(stored), len(used) - 1)], width)
    name = patch.constant(f"widen{stored}to{width}_{'_'.join(map(str, used))}", table, shared=True)
    found = patch.add("Gather", name, _bytes(patch, codes, stored), axis=0)
    return patch.add("Reshape", found, _shape(patch, shape))


def values(patch: Patch, codes: Array, stored: int, table: Array, axis: int) -> str:
    """`table[i, codes[i, j]]` (axis 1, table [rows, levels]) or `table[codes[i, j], j]` (axis 0, table
    [levels, columns]), of the table's dtype; a table of one row or column serves all."""
    patch.need(OPSET, f"a form of {stored} bits on disk")
    if table.shape[1 - axis] == 1:
        flat = table.ravel()
        each = flat[np.minimum(codes_in_a_byte(stored), len(flat) - 1)]
        found = patch.add("Gather", patch.constant("book", each), _bytes(patch, codes, stored), axis=0)
        return _shaped(patch, found, codes.shape, stored)
    bits = patch.constant(f"codes{stored}", codes_in_a_byte(stored), shared=True)
    found = patch.add("Gather", bits, _bytes(patch, codes, stored), axis=0)
    indices = patch.add("Cast", _shaped(patch, found, codes.shape, stored), to=INT32)
    return patch.add("GatherElements", patch.constant("books", table), indices, axis=axis)


def _bytes(patch: Patch, codes: Array, stored: int) -> str:
    packed = patch.constant(f"packed{stored}", pack(codes.ravel(), stored))
    return patch.add("Cast", packed, to=INT32)


def _shaped(patch: Patch, found: str, shape: tuple[int, ...], stored: int) -> str:
    count = int(np.prod(shape))
    if count * stored % 8:
        found = patch.add("Reshape", found, _shape(patch, (-1,)))
        ends = [patch.constant(f"end{end}", np.array([end]), shared=True) for end in (0, count)]
        found = patch.add("Slice", found, *ends)
    return patch.add("Reshape", found, _shape(patch, shape))


def _shape(patch: Patch, shape: tuple[int, ...]) -> str:
    return patch.constant("shape" + "x".join(map(str, shape)), np.array(shape, np.int64), shared=True)
