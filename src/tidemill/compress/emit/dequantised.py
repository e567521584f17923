"""Weights kept as 8-bit integers behind a DequantizeLinear, which engines do not carry out while loading.

For convolutions, for products with the constant on the left, and where the input is quantised too: there onnxruntime
and OpenVINO turn the three into integer arithmetic. Runs where graphs do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tidemill.compress.emit import grid, lookup
from tidemill.compress.emit.packing import width_for
from tidemill.compress.emit.patch import Emission, Patch
from tidemill.compress.forms import Codebook, Form, Planes, Uniform
from tidemill.core.tensor import Array

OPSET = 13
BLOCK_MIN = 16
SNAPPED_BITS_MAX = 4
"""Up to here, zero points between codes cost little when the values are put onto a grid of 8 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """`scales * (table[:, codes] - zero_points)`: codes [rows, columns]; table int8 or uint8 [rows or 1, levels];
    scales and zero points [rows], or None for zeros. `rows_each` rows make one output: its blocks."""

    codes: Array
    table: Array
    scales: Array
    zero_points: Array | None
    rows_each: int = 1
    shift: Array | None = None
    """float32 [rows], added to every weight of a row."""


def integers_of(form: Form) -> list[Integers]:
    """Parts whose sum is the weight."""
    if isinstance(form, Uniform):
        return [_uniform(form)]
    if isinstance(form, Codebook | Planes):
        table = grid.table_of(form)
        if table is not None:
            return [_table(table)]
    if isinstance(form, Planes):
        return [_uniform(plane) for plane in form.planes]
    raise TypeError(f"{type(form).__name__} has no codes")


def _uniform(form: Uniform) -> Integers:
    shift = None
    if not grid.whole(form):
        if form.bits <= SNAPPED_BITS_MAX:
            return _table(grid.values_of(form))
        rounded = np.clip(np.rint(form.zero_points), 0, 2**form.bits - 1)
        moved = (rounded - form.zero_points) * form.scales
        shift = _blocked(form.codes, form.block, [moved])[1][0].reshape(-1).astype(np.float32)
        form = replace(form, zero_points=rounded.astype(np.uint8))
    codes, (scales, zeros) = _blocked(form.codes, form.block, [form.scales, form.zero_points])
    count = scales.shape[1]
    scales, zeros = scales.reshape(-1), zeros.reshape(-1)
    table = np.arange(2**form.bits, dtype=np.int16) - zeros[:, None].astype(np.int16)
    # Integer products want int8 and no zero points. Blocks cannot become one, and a table for each would cost bytes.
    if count == 1 and shift is None and table.min() >= -128 and table.max() <= 127:
        table = table[:1] if (table == table[:1]).all() else table
        return Integers(codes, table.astype(np.int8), scales, None, count)
    table = np.arange(2**form.bits, dtype=np.uint8)[None]
    return Integers(codes, table, scales, zeros.astype(np.uint8), count, shift)


def _table(table: grid.Table) -> Integers:
    codes, (values,) = _blocked(table.codes, table.block, [table.values])
    levels, scales = grid.signed(values.reshape(-1, table.levels))
    levels = levels[:1] if (levels == levels[:1]).all() else levels
    return Integers(codes, levels, scales, None, values.shape[1])


def _blocked(codes: Array, block: int, sides: list[Array]) -> tuple[Array, list[Array]]:
    """Codes with a block to a row, and what belongs to each; blocks that do not part the columns evenly become smaller
    ones that do, where those are not too small."""
    columns = codes.shape[1]
    if block == 0 or block >= columns:
        return codes, sides
    finer = math.gcd(block, columns)
    if finer >= BLOCK_MIN and finer < block:
        at = np.arange(0, columns, finer) // block
        block, sides = finer, [side[:, at] for side in sides]
    padded = np.pad(codes, ((0, 0), (0, -columns % block)))
    return padded.reshape(-1, block), sides


def write(patch: Patch, parts: list[Integers], shape: tuple[int, ...], out_first: bool, emission: Emission) -> str:
    """A float32 tensor of the layer's own storage: `shape`, with outputs first or last."""
    patch.need(OPSET, "a weight of 8 bits")
    total = ""
    for part in parts:
        if part.rows_each == 1:
            name = _dequantised(patch, part, shape, out_first, emission)
        else:
            name = _from_blocks(patch, part, shape, out_first, emission)
        total = patch.add("Add", total, name) if total else name
    return total


def integers(patch: Patch, part: Integers, shape: tuple[int, ...], out_first: bool, emission: Emission) -> str:
    """The integers alone, in `shape`; of int8 where there are no zero points, else uint8."""
    codes, table = (part.codes, part.table) if out_first else (part.codes.T, part.table.T)
    stored = width_for(part.table.shape[1])
    if emission.fold and stored < 8:
        found = lookup.values(patch, np.ascontiguousarray(codes), stored, np.ascontiguousarray(table), int(out_first))
        return found if codes.shape == shape else patch.add("Reshape", found, _shape(patch, shape))
    whole = np.take_along_axis(
        np.broadcast_to(part.table, (len(part.codes), part.table.shape[1])), part.codes.astype(np.intp), 1
    )
    return patch.constant("codes", np.ascontiguousarray(whole if out_first else whole.T).reshape(shape))


def _dequantised(patch: Patch, part: Integers, shape: tuple[int, ...], out_first: bool, emission: Emission) -> str:
    inputs = [integers(patch, part, shape, out_first, emission)]
    inputs.append(patch.constant("scales", part.scales.astype(np.float32)))
    if part.zero_points is not None:
        inputs.append(patch.constant("zeros", part.zero_points))
    along = 0 if out_first else len(shape) - 1
    found = patch.add("DequantizeLinear", *inputs, axis=along)
    if part.shift is None:
        return found
    beside = [1] * len(shape)
    beside[along] = -1
    return patch.add("Add", found, patch.constant("shift", part.shift.reshape(beside)))


def _from_blocks(patch: Patch, part: Integers, shape: tuple[int, ...], out_first: bool, emission: Emission) -> str:
    """Decoded block by block, then put together: standard operators have no blocks before opset 21."""
    outputs = len(part.codes) // part.rows_each
    columns = math.prod(shape) // outputs
    found = _dequantised(patch, part, part.codes.shape, True, emission)
    whole = part.rows_each * part.codes.shape[1]
    found = patch.add("Reshape", found, _shape(patch, (outputs, whole)))
    if whole > columns:
        ends = [patch.constant(f"end{end}", np.array([end]), shared=True) for end in (0, columns, 1)]
        found = patch.add("Slice", found, *ends)
    if not out_first:
        found = patch.add("Transpose", found, perm=[1, 0])
    return found if len(shape) == 2 else patch.add("Reshape", found, _shape(patch, shape))


def _shape(patch: Patch, shape: tuple[int, ...]) -> str:
    return patch.constant("shape" + "x".join(map(str, shape)), np.array(shape, np.int64), shared=True)
