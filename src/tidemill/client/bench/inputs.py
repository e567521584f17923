"""The tensors that a load sends: made from a model's signature, or read from a file. Pure, but for that file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import orjson

from tidemill.core.errors import InvalidSetting, WrongValue
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec

ELEMENTS_MAX = 2**28
WORD_BYTES = 8


def made(
    signature: Signature, *, rows: int = 1, shapes: Mapping[str, Sequence[int]] | None = None, seed: int | None = 0
) -> dict[str, Array]:
    """Tensors that fit `signature`: dimension 0 is `rows` where it is free, other free ones are 1, unless `shapes` says
    otherwise by the input's name.

    With a seed floats are drawn from the standard normal distribution, whole numbers and booleans from 0 and 1 (good
    for token ids and masks alike), strings from eight letters; None makes zeros. Raises `InvalidSetting`.
    """
    asked = shapes or {}
    for name in asked:
        signature.input(name)
    random = None if seed is None else np.random.default_rng(seed)
    return {spec.name: _filled(spec, _shape(spec, rows, asked.get(spec.name)), random) for spec in signature.inputs}


def _shape(spec: TensorSpec, rows: int, asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked is not None:
        shape = tuple(asked)
        if not spec.admits(shape):
            raise InvalidSetting(f"input {spec.name!r} cannot have shape {list(shape)}; the model takes {spec}")
    elif spec.shape is None:
        shape = (rows,)
    else:
        shape = tuple((rows if place == 0 else 1) if side == -1 else side for place, side in enumerate(spec.shape))
    if int(np.prod(shape, dtype=object)) > ELEMENTS_MAX:
        raise InvalidSetting(f"input {spec.name!r} of shape {list(shape)} has more than {ELEMENTS_MAX} values")
    return shape


def _filled(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator | None) -> Array:
    if spec.datatype == "BYTES":
        array = np.full(shape, b"", dtype=object)
        if random is not None:
            letters = random.integers(97, 123, (array.size, WORD_BYTES), np.uint8)
            array.ravel()[:] = [bytes(each) for each in letters]
        return array
    if random is None:
        return np.zeros(shape, spec.dtype)
    if spec.dtype.kind in "fV":  # V: bfloat16
        return random.standard_normal(shape, np.float32).astype(spec.dtype)
    return random.integers(0, 2, shape, np.uint8).astype(spec.dtype)


def read(file: Path, signature: Signature) -> dict[str, Array]:
    """Arrays by input's name (.npz), one array for a model's first input (.npy), or JSON: `{"inputs": {NAME: VALUES}}`,
    `{NAME: VALUES}` or a V2 request. Raises `WrongValue`."""
    try:
        if file.suffix in (".npy", ".npz"):
            return _from_arrays(file, signature)
        if file.suffix == ".json":
            return _from_json(orjson.loads(file.read_bytes()), signature)
    except (ValueError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise WrongValue(f"{file} holds no inputs that can be read: {str(error).partition(chr(10))[0]}") from error
    raise WrongValue(f"{file}: inputs are read from .npz, .npy and .json")


def _from_arrays(file: Path, signature: Signature) -> dict[str, Array]:
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return {signature.inputs[0].name: np.ascontiguousarray(found)}
    with found:
        return {name: np.ascontiguousarray(found[name]) for name in found.files}


def _from_json(value: Any, signature: Signature) -> dict[str, Array]:
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, expected an object")
    given = value.get("inputs", value)
    if isinstance(given, list):
        return {each["name"]: _array(signature.input(each["name"]), each["data"], each["shape"]) for each in given}
    if not isinstance(given, dict):
        raise ValueError("`inputs` is expected to hold values by the input's name")
    return {name: _array(signature.input(name), values, None) for name, values in given.items()}


def _array(spec: TensorSpec, values: Any, shape: Sequence[int] | None) -> Array:
    if spec.datatype == "BYTES":
        array = np.array(values, dtype=object)
        array = np.frompyfunc(lambda each: each.encode() if isinstance(each, str) else each, 1, 1)(array)
        array = np.asarray(array, dtype=object)
    else:
        array = np.array(values).astype(spec.dtype)
    return array if shape is None else array.reshape(list(shape))


def rows_of(signature: Signature, tensors: Tensors) -> int:
    """Rows of one request; 1 where dimension 0 is none of rows."""
    if not signature.batched:
        return 1
    return max((array.shape[0] for array in tensors.values() if array.ndim), default=1)
