"""Finds out by asking whether a model keeps the rows of a batch apart; runs once, when a model is loaded.

A free first dimension is usually a batch, and sometimes a time or a set: joined there, the answer to one caller would
depend on another's question.
"""

from __future__ import annotations

import numpy as np

from tidemill.core.contracts import Engine
from tidemill.core.tensor import Array, Tensors, TensorSpec
from tidemill.engine.padding import Padder

SCALES = (1.0, 1000.0)
"""Of the two rows: what is computed over the whole batch (a maximum, the scale of a quantisation) shows."""
FREE_SIDES = (8, 1)
"""Sizes tried for the other free dimensions, the first that the model takes."""
TOLERANCE = 0.1
"""Of the largest value of an answer. Made-up rows excite rounding: magika differs by .015 from one batch to another,
and what is computed over a whole batch by ten times that and more."""
SEED = 7
LENGTHS = (3, 8)
"""Of the rows by which it is tried whether padding shows."""


def keeps_rows_apart(engine: Engine) -> bool:
    """Whether two rows of very different scale are answered together as they are alone.

    True also where the model takes none of the rows that are tried: then its signature is all there is to go by.
    """
    for side in FREE_SIDES:
        rows = [_row(engine, side, scale) for scale in SCALES]
        try:
            alone = [engine.predict(row, ()) for row in rows]
            joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            together = engine.predict(joined, ())
        except Exception:  # noqa: BLE001, S112 - made-up rows may be no input for it, which an engine may say in any way
            continue
        return all(_same(alone, together, number) for number in range(len(rows)))
    return True


def padding_holds(engine: Engine, padder: Padder) -> bool:
    """Whether a short row beside a long one is answered as it is alone: whether the mask is heeded."""
    rows = [_stretch(engine, padder, length, seed) for seed, length in enumerate(LENGTHS)]
    try:
        alone = [engine.predict(row, ()) for row in rows]
        padded = [padder.pad(row, max(LENGTHS)) for row in rows]
        together = engine.predict({name: np.concatenate([row[name] for row in padded]) for name in rows[0]}, ())
    except Exception:  # noqa: BLE001 - made-up rows may be no input for it, which an engine may say in any way
        return False
    for number, length in enumerate(LENGTHS):
        part = padder.cut({name: array[number : number + 1] for name, array in together.items()}, length)
        if not _same([alone[number]], part, 0):
            return False
    return True


def _stretch(engine: Engine, padder: Padder, length: int, seed: int) -> Tensors:
    """One row of `length` with a mask of ones; an input that is not the mask has small whole numbers."""
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for spec in engine.signature.inputs:
        shape = [1, *(1 if size == -1 else size for size in (spec.shape or ())[1:])]
        if spec.name in padder.fills:
            shape[padder.axis] = length
        values = np.ones(shape) if spec.name == padder.mask else random.integers(0, 2, shape)
        made[spec.name] = values.astype(spec.dtype)
    return made


def _row(engine: Engine, side: int, scale: float) -> Tensors:
    random = np.random.default_rng(SEED)
    return {spec.name: _values(spec, side, scale, random) for spec in engine.signature.inputs}


def _values(spec: TensorSpec, side: int, scale: float, random: np.random.Generator) -> Array:
    shape = [1, *(side if size == -1 else size for size in (spec.shape or ())[1:])]
    if spec.datatype == "BYTES":
        return np.full(shape, b"%d" % scale, dtype=object)
    if spec.dtype.kind in "iub":  # small whole numbers: they may be places in a table
        return random.integers(0, 2, shape).astype(spec.dtype)
    return (random.standard_normal(shape) * scale).astype(spec.dtype)


def _same(alone: list[Tensors], together: Tensors, number: int) -> bool:
    for name, array in alone[number].items():
        whole = together[name]
        if array.ndim == 0 or whole.shape != (len(alone) * array.shape[0], *array.shape[1:]):
            return False
        part = whole[number * array.shape[0] : (number + 1) * array.shape[0]]
        if array.dtype == object or array.dtype.kind in "iub":
            if not np.array_equal(array, part):
                return False
            continue
        wanted, got = array.astype(np.float64), part.astype(np.float64)
        bound = TOLERANCE * float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted))) + 1e-6
        if not np.allclose(wanted, got, rtol=0.0, atol=bound, equal_nan=True):
            return False
    return True
