"""JSON in and out for both REST dialects: strict where JSON is, with the NaN and Infinity that model clients send."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson

from tidemill.core.errors import MalformedRequest, WrongDatatype, WrongShape, WrongValue
from tidemill.core.tensor import Array, TensorSpec

SHORT_VECTOR = 1024
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_TAKES = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}
"""kind of dtype wanted -> kinds of JSON values that go there without loss of meaning."""
_KINDS = {
    "b": "booleans",
    "i": "integers",
    "u": "integers",
    "f": "numbers",
    "U": "strings",
    "S": "strings",
    "O": "mixed",
}


def parse(body: bytes | memoryview) -> Any:
    """Raises `MalformedRequest` with the place."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        text = bytes(body)
        if b"NaN" not in text and b"Infinity" not in text:
            raise MalformedRequest(f"the body is not JSON: {error}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error


def render(value: Any) -> bytes:
    """JSON of plain values and C-contiguous arrays; numbers that JSON has no word for become NaN and Infinity."""
    encoded = orjson.dumps(value, option=_OPTIONS, default=_plain)
    # orjson writes null for them; an honest null or a text that says so costs one needless second pass.
    return encoded if b"null" not in encoded else json.dumps(_lists(value), separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(np.float32).tolist() if value.dtype.name in ("bfloat16", "float16") else value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8")
    raise TypeError(type(value).__name__)


def _lists(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_lists(each) for each in _plain(value)] if value.ndim else _plain(value)
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_lists(each) for each in value]
    return _plain(value) if isinstance(value, bytes) else value


def to_array(spec: TensorSpec, data: Any) -> Array:
    """A nested list (or a number) of JSON values as the array that `spec` wants; its shape is the nesting.

    Raises `WrongShape` for a ragged list, `WrongDatatype` for values of another kind, `WrongValue` for numbers that the
    datatype cannot hold.
    """
    if spec.datatype == "BYTES":
        return _strings(spec.name, data)
    dtype = spec.dtype
    try:
        found = np.array(data)
    except (ValueError, OverflowError) as error:
        raise WrongShape(f"input {spec.name!r} is ragged: rows of one length expected ({error})") from error
    if found.size == 0 and found.dtype.kind == "f":
        return found.astype(dtype)
    wanted = "f" if dtype.kind == "V" or spec.datatype == "BF16" else dtype.kind
    if found.dtype.kind not in _TAKES[wanted]:
        raise _mismatch(spec, found, data)
    if wanted in "iu":
        if found.dtype != dtype and found.size:
            limits = np.iinfo(dtype)
            low, high = found.min(), found.max()
            if low < limits.min or high > limits.max:
                value = low if low < limits.min else high
                raise WrongValue(
                    f"input {spec.name!r} holds {value}, which {spec.datatype} cannot ({limits.min} to {limits.max})"
                )
        return found.astype(dtype, copy=False)
    if found.dtype == dtype:
        return found
    return _narrowed(spec, found)


def floats(spec: TensorSpec, data: list[float]) -> Array:
    """`to_array` for what is known to be a flat list of numbers."""
    return _narrowed(spec, np.array(data))


def _narrowed(spec: TensorSpec, wide: Array) -> Array:
    """`wide` in the float type of `spec`. Raises `WrongValue` for a number that spills over."""
    try:
        array = wide.astype(spec.dtype)
    except RuntimeWarning:  # where warnings are errors
        array = None
    if array is None or not _surely_finite(array):
        with np.errstate(over="ignore", invalid="ignore"):
            array = wide.astype(spec.dtype)
            spilled = np.isinf(array.astype(np.float64)) & np.isfinite(wide)
        if spilled.any():
            raise WrongValue(f"input {spec.name!r} holds {wide[spilled][0]}, which {spec.datatype} cannot")
    return array


def _surely_finite(array: Array) -> bool:
    """False when a value may be NaN or infinite. The square of a short vector is the cheapest look at all its
    values."""
    if array.size <= SHORT_VECTOR:
        flat = array.ravel()
        return math.isfinite(flat.dot(flat))
    return bool(np.isfinite(array).all())


def _mismatch(spec: TensorSpec, found: Array, data: Any) -> WrongDatatype | WrongShape | WrongValue:
    kind = found.dtype.kind
    if kind == "O":
        culprit = _odd_one(data)
        if isinstance(culprit, int) and not isinstance(culprit, bool):
            return WrongValue(f"input {spec.name!r} holds {culprit}, which {spec.datatype} cannot")
        shown = "null" if culprit is None else f"a {type(culprit).__name__}"
        return WrongDatatype(f"input {spec.name!r} holds {shown}, expected {spec.datatype}")
    if kind == "f" and found.size and not np.isfinite(found).all():
        return WrongValue(f"input {spec.name!r} holds NaN or Infinity, which {spec.datatype} cannot")
    return WrongDatatype(f"input {spec.name!r} holds {_KINDS.get(kind, kind)}, expected {spec.datatype}")


def _odd_one(data: Any, steps_max: int = 100_000) -> Any:
    """The first value that is no number an array can hold."""
    stack = [data]
    while stack and steps_max:
        steps_max -= 1
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value))
        elif not isinstance(value, float | bool) and not (isinstance(value, int) and -(2**63) <= value < 2**64):
            return value
    return None


def _strings(name: str, data: Any) -> Array:
    shape: list[int] = []
    level = data
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    flat: list[bytes] = []
    _flatten(name, data, shape, 0, flat)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _flatten(name: str, data: Any, shape: list[int], depth: int, into: list[bytes]) -> None:
    if depth == len(shape):
        if isinstance(data, list):
            raise WrongShape(f"input {name!r} is ragged: rows of one length expected")
        if isinstance(data, bytes):
            into.append(data)
        elif isinstance(data, str):
            into.append(data.encode("utf-8", "surrogatepass"))
        else:
            raise WrongDatatype(f"input {name!r} holds {type(data).__name__}, expected BYTES (strings)")
        return
    if not isinstance(data, list) or len(data) != shape[depth]:
        raise WrongShape(f"input {name!r} is ragged: rows of one length expected")
    for each in data:
        _flatten(name, each, shape, depth + 1, into)
