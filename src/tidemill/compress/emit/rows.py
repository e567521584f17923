"""Embeddings whose table stays packed: only the rows that are asked for are decoded; runs where graphs do.

Standard operators alone, so every engine reads them; exact for every form.
"""

from __future__ import annotations

import numpy as np

from tidemill.compress.emit.packing import codes_in_a_byte, pack, width_for
from tidemill.compress.emit.patch import Patch
from tidemill.compress.forms import Codebook, Form, Planes, Uniform
from tidemill.core.tensor import Array

FLOAT, INT32 = 1, 6
OPSET = 11


def write(patch: Patch, form: Form) -> None:
    """Replaces a Gather of rows."""
    patch.need(OPSET, "a packed embedding")
    indices = patch.layer.input
    parts = form.planes if isinstance(form, Planes) else (form,)
    total = ""
    for at, part in enumerate(parts):
        decoded = _codebook(patch, indices, part) if isinstance(part, Codebook) else _uniform(patch, indices, part)
        total = patch.add("Add", total, decoded) if at else decoded
    patch.nodes[-1].output[0] = patch.output


def _uniform(patch: Patch, indices: str, form: Form) -> str:
    if not isinstance(form, Uniform):
        raise TypeError(f"{type(form).__name__} has no codes")
    columns, count = form.codes.shape[1], form.scales.shape[1]
    block = form.block if count > 1 else columns
    codes = np.pad(form.codes, ((0, 0), (0, count * block - columns)))
    used, each = np.unique(codes, return_inverse=True)
    rows = _decoded(patch, indices, each.reshape(codes.shape), used.astype(np.float32))
    sides = []
    for what, array in (("scales", form.scales.astype(np.float32)), ("zeros", form.zero_points)):
        if what == "zeros" and (array == array.flat[0]).all():
            sides.append(patch.constant("zero", np.array(array.flat[0], np.float32)))
            continue
        side = patch.add("Gather", patch.constant(what, array), indices, axis=0)
        side = side if what == "scales" else patch.add("Cast", side, to=FLOAT)
        sides.append(side if count == 1 else _last(patch, side, indices, (count, 1)))
    if count > 1:
        rows = _last(patch, rows, indices, (count, block))
    rows = patch.add("Mul", patch.add("Sub", rows, sides[1]), sides[0])
    if count > 1:
        rows = _last(patch, rows, indices, (count * block,))
    return _cut(patch, rows, count * block, columns)


def _codebook(patch: Patch, indices: str, form: Codebook) -> str:
    if len(form.values) == 1:
        return _decoded(patch, indices, form.codes, form.values[0])
    levels = np.arange(form.values.shape[1])
    codes = _decoded(patch, indices, form.codes, levels.astype(np.int32))
    books = patch.add("Gather", patch.constant("books", form.values.astype(np.float32)), indices, axis=0)
    return patch.add("GatherElements", books, codes, axis=-1)


def _decoded(patch: Patch, indices: str, codes: Array, levels: Array) -> str:
    """`levels[codes]` of the rows at `indices`."""
    columns = codes.shape[1]
    stored = width_for(len(levels))
    packed = patch.constant(f"packed{stored}", pack(codes, stored))
    found = patch.add("Cast", patch.add("Gather", packed, indices, axis=0), to=INT32)
    each = levels[np.minimum(codes_in_a_byte(stored), len(levels) - 1)]
    if stored == 8:
        return patch.add("Gather", patch.constant("levels", levels), found, axis=0)
    found = patch.add("Gather", patch.constant("levels", each), found, axis=0)
    width = packed_columns = pack(codes[:1], stored).shape[1] * (8 // stored)
    return _cut(patch, _last(patch, found, indices, (width,)), packed_columns, columns)


def _last(patch: Patch, tensor: str, indices: str, last: tuple[int, ...]) -> str:
    """Reshaped to the shape of `indices` and then `last`."""
    tail = patch.constant("last" + "x".join(map(str, last)), np.array(last, np.int64), shared=True)
    shape = patch.add("Concat", patch.add("Shape", indices), tail, axis=0)
    return patch.add("Reshape", tensor, shape)


def _cut(patch: Patch, tensor: str, have: int, want: int) -> str:
    if have == want:
        return tensor
    ends = [patch.constant(f"end{end}", np.array([end]), shared=True) for end in (0, want, -1)]
    return patch.add("Slice", tensor, *ends)
