"""Matrix products whose weights stay codes of 2, 4 or 8 bits: onnxruntime's MatMulNBits; runs where graphs do.

OpenVINO reads the operator too, where its codes are constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tidemill.compress.emit import grid, lookup
from tidemill.compress.emit.packing import pack, width_for
from tidemill.compress.emit.patch import MICROSOFT, Emission, Patch
from tidemill.compress.forms import Codebook, Form, Planes, Uniform
from tidemill.core.tensor import Array

BLOCKS = (256, 128, 64, 32, 16)
"""What onnxruntime 1.31 takes, for 2 bits too."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """`scales * (used[codes] - zero_points)`: codes [out, in] below len(used); `used` are codes of `width` bits, of
    which one row, or one for each (out, block): [out, blocks, levels]. Scales and zero points are [out, blocks]."""

    codes: Array
    used: Array
    scales: Array
    zero_points: Array
    width: int
    block: int
    shift: Array | None = None
    """[out, ceil(in / shift_block)], added to every weight of a block."""
    shift_block: int = 0


def blocks_of(form: Form) -> list[Blocks] | None:
    """Parts whose products are summed; None where the form's blocks are not ones that the operator knows."""
    if isinstance(form, Uniform):
        part = _uniform(form)
        return None if part is None else [part]
    if isinstance(form, Codebook | Planes):
        table = grid.table_of(form)
        if table is not None:
            part = _table(table)
            return None if part is None else [part]
    if isinstance(form, Planes):
        parts = [_uniform(plane) for plane in form.planes]
        return None if any(part is None for part in parts) else [part for part in parts if part is not None]
    return None


def block_for(columns: int, width: int, given: int) -> int | None:
    """The block to write: for whole rows (`given` 0) the one that costs the fewest bytes, else the largest that parts
    the given one evenly."""
    if given == 0 or given >= columns:
        return min(BLOCKS, key=lambda block: (_row_bytes(columns, width, block), -block))
    return next((block for block in BLOCKS if given % block == 0), None)


def _row_bytes(columns: int, width: int, block: int) -> int:
    count = math.ceil(columns / block)
    return count * block * width // 8 + 4 * count + math.ceil(count * width / 8)


def _uniform(form: Uniform) -> Blocks | None:
    width = 2 if form.bits <= 2 else width_for(2**form.bits)
    columns = form.codes.shape[1]
    block = block_for(columns, width, form.block)
    if block is None:
        return None
    shift, zeros = None, form.zero_points
    if not grid.whole(form):
        table = grid.values_of(form)
        if table.levels <= 4 and grid.snapped(table.values)[3] <= width:
            return _table(table)
        # onnxruntime (1.31) takes no zero points between codes of 8 bits, and with those between codes of 2 and 4 bits
        # leaves its integer kernels for float32: so they are rounded, and what that moves is added behind.
        zeros = np.clip(np.rint(zeros), 0, 2**form.bits - 1)
        shift = ((zeros - form.zero_points) * form.scales).astype(np.float32)
    used, codes = np.unique(form.codes, return_inverse=True)
    codes = codes.reshape(form.codes.shape).astype(np.uint8)
    scales, zeros = (_spread(each, form.block, columns, block) for each in (form.scales, zeros.astype(np.uint8)))
    return Blocks(codes, used, scales, zeros, width, block, shift, form.block)


def _table(table: grid.Table) -> Blocks | None:
    columns = table.codes.shape[1]
    used, scales, zeros, width = grid.snapped(table.values)
    block = block_for(columns, width, table.block)
    if block is None:
        return None
    spread = [_spread(each, table.block, columns, block) for each in (scales, zeros)]
    same = bool((used == used[:1, :1]).all())
    levels = used[0, 0] if same else _spread(used, table.block, columns, block)
    return Blocks(table.codes, levels, spread[0], spread[1], width, block)


def _spread(array: Array, given: int, columns: int, block: int) -> Array:
    """[out, blocks of `given` columns, ...] as [out, blocks of `block` columns, ...]."""
    starts = np.arange(math.ceil(columns / block)) * block
    return np.ascontiguousarray(array[:, starts // (given or columns)])


def write(patch: Patch, source: str, form_blocks: list[Blocks], emission: Emission) -> str:
    """The product of `source` [..., in] with the sum of the parts: the name of a tensor [..., out]."""
    products = [_product(patch, source, part, emission) for part in form_blocks]
    total = products[0]
    for each in products[1:]:
        total = patch.add("Add", total, each)
    return total


def _product(patch: Patch, source: str, part: Blocks, emission: Emission) -> str:
    out, columns = part.codes.shape
    inputs = [source, _weight(patch, part, emission), patch.constant("scales", part.scales.astype(np.float32))]
    if (part.zero_points != 2 ** (part.width - 1)).any():
        inputs.append(patch.constant("zeros", pack(part.zero_points, part.width)))
    product = patch.add(
        "MatMulNBits", *inputs, domain=MICROSOFT, K=columns, N=out, bits=part.width, block_size=part.block,
        accuracy_level=emission.accuracy_level,
    )  # fmt: skip
    return product if part.shift is None else patch.add("Add", product, _shift(patch, source, part.shift, part))


def _shift(patch: Patch, source: str, shift: Array, part: Blocks) -> str:
    """The sum of the input over each block, times what is added to the block's weights."""
    columns = part.codes.shape[1]
    blocks = np.arange(columns) // (part.shift_block or columns)
    sums = (blocks[:, None] == np.arange(shift.shape[1])).astype(np.float32)
    within = patch.constant(f"sums{columns}by{part.shift_block}", sums, shared=True)
    return patch.add("MatMul", patch.add("MatMul", source, within), patch.constant("shift", shift.T))


def _weight(patch: Patch, part: Blocks, emission: Emission) -> str:
    """The name of the operator's uint8 [out, blocks, bytes of a block]."""
    out, columns = part.codes.shape
    count = part.scales.shape[1]
    padded = np.pad(part.codes, ((0, 0), (0, count * part.block - columns)))
    shape = (out, count, part.block * part.width // 8)
    levels = part.used.shape[-1]
    stored = width_for(levels)
    if emission.fold and stored < part.width:
        if part.used.ndim == 1:
            return lookup.widened(patch, padded, stored, part.width, part.used, shape)
        if part.width == 8:
            return _folded_books(patch, padded, part, shape)
    if part.used.ndim == 1:
        codes = part.used[padded]
    else:
        blocks = padded.reshape(out, count, part.block)
        codes = np.take_along_axis(part.used, blocks.astype(np.intp), axis=2).reshape(out, -1)
    codes = codes.reshape(out, count, part.block)
    return patch.constant("codes", pack(codes, part.width))


def _folded_books(patch: Patch, padded: Array, part: Blocks, shape: tuple[int, ...]) -> str:
    """Each row's, or each block's, values of 8 bits."""
    stored = width_for(part.used.shape[-1])
    if (part.used == part.used[:, :1]).all():
        codes, books = padded, part.used[:, 0]
    else:
        codes, books = padded.reshape(-1, part.block), part.used.reshape(-1, part.used.shape[-1])
    if (books == books[:1]).all():
        books = books[:1]
    found = lookup.values(patch, codes, stored, books, axis=1)
    return patch.add("Reshape", found, patch.constant("B" + "x".join(map(str, shape)), np.array(shape), shared=True))
