"""JSON in and out for both REST dialects: strict where JSON is, with the NaN and Infinity that model clients send."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from tidemill.core.errors import MalformedRequest, WrongDatatype, WrongShape, WrongValue
from tidemill.core.tensor import Array, TensorSpec
from tidemill.core.text import short
from tidemill.doors.numbers import narrowed

RANK_MAX = 64
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
    if isinstance(value, np.generic):
        return float(value) if value.dtype.kind in "fV" else value.item()
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
    return _plain(value) if isinstance(value, bytes | np.generic) else value


def to_array(spec: TensorSpec, data: Any, mixed: bool = False, exact: bool = False) -> Array:
    """A nested list (or a number) of JSON values as the array that `spec` wants; its shape is the nesting.

    `mixed` tells that there may be booleans or strings: numpy takes the first for 0 and 1 among numbers, and makes all
    of them as long as the longest string; we do neither. `exact` refuses whole numbers that a float type would round.
    Raises `WrongShape` for a ragged list, `WrongDatatype` for values of another kind, `WrongValue` for numbers that the
    datatype cannot hold.
    """
    depth, level = 0, data
    while isinstance(level, list):
        depth += 1
        level = level[0] if level else None
    if depth > RANK_MAX:
        raise WrongShape(f"input {spec.name!r} is nested {depth} deep; at most {RANK_MAX} dimensions are served")
    if spec.datatype == "BYTES":
        return _strings(spec.name, data)
    wanted = _kind_of(spec)
    if mixed:
        _check_unmixed(spec, wanted, data)
    try:
        found = np.array(data)
    except (ValueError, OverflowError) as error:
        raise _ragged(spec.name, data) from error
    if found.size and found.dtype.kind not in _TAKES[wanted]:
        return _rescued(spec, found, data)
    return _as_wanted(spec, found, wanted, _values(data) if exact else None)


def cast(spec: TensorSpec, found: Array) -> Array:
    """`to_array` for an array of numbers, or of bytes, that is already one; it is `exact`."""
    if found.dtype == object or spec.datatype == "BYTES":
        if found.dtype == spec.dtype or not found.size:
            return found.astype(spec.dtype, copy=False)
        held = "strings" if found.dtype == object else _KINDS.get(found.dtype.kind, found.dtype.name)
        raise WrongDatatype(f"input {spec.name!r} holds {held}, expected {spec.datatype}")
    wanted = _kind_of(spec)
    if found.size and found.dtype.kind not in _TAKES[wanted]:
        raise _mismatch(spec, found, found.tolist())
    return _as_wanted(spec, found, wanted, ())


def _kind_of(spec: TensorSpec) -> str:
    return "f" if spec.datatype == "BF16" else spec.dtype.kind


def _as_wanted(spec: TensorSpec, found: Array, wanted: str, values: Iterable[Any] | None) -> Array:
    """`found`, whose kind goes to the kind `wanted`, in the datatype of `spec`; `values` as `narrowed` has them."""
    if wanted == "f" and found.size:
        return narrowed(spec, found, values)
    if wanted in "iu" and found.dtype != spec.dtype and found.size:
        _check_range(spec, int(found.min()), int(found.max()))
    return found.astype(spec.dtype, copy=False)


def _check_unmixed(spec: TensorSpec, wanted: str, data: Any) -> None:
    for value in _values(data):
        if isinstance(value, str | bytes):
            raise WrongDatatype(f"input {spec.name!r} holds strings, expected {spec.datatype}")
        if wanted != "b" and isinstance(value, bool):
            raise WrongDatatype(f"input {spec.name!r} holds booleans, expected {spec.datatype}")


def _check_range(spec: TensorSpec, low: int, high: int) -> None:
    limits = np.iinfo(spec.dtype)
    for value in (low, high):
        if not limits.min <= value <= limits.max:
            raise WrongValue(
                f"input {spec.name!r} holds {short(value)}, which {spec.datatype} cannot ({limits.min} to {limits.max})"
            )


def _rescued(spec: TensorSpec, found: Array, data: Any) -> Array:
    """Whole numbers beyond 63 bits, which numpy takes for other things; whatever else has the wrong kind raises."""
    if spec.dtype.kind in "iu" and found.dtype.kind in "fO":
        values = list(_values(data))
        if values and all(type(value) is int for value in values):
            _check_range(spec, min(values), max(values))
            return np.array(data, dtype=spec.dtype)
        # The JSON parser gives whole numbers beyond 64 bits as floats.
        if any(type(value) is float and math.isfinite(value) and abs(value) >= 2.0**63 for value in values):
            largest = max((value for value in values if isinstance(value, int | float)), key=abs)
            raise WrongValue(f"input {spec.name!r} holds {short(largest)}, which {spec.datatype} cannot")
    raise _mismatch(spec, found, data)


def _values(data: Any) -> Iterator[Any]:
    """The values of a nested list, in order."""
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value))
        else:
            yield value


def floats(spec: TensorSpec, data: list[float]) -> Array:
    """`to_array` for what is known to be a flat list of numbers."""
    return narrowed(spec, doubles(data))


def doubles(data: list[float]) -> Array:
    """FP64, read only. Packing takes a third of the time of `np.array`."""
    return np.frombuffer(_doubles(len(data)).pack(*data))


@lru_cache(1024)
def _doubles(count: int) -> struct.Struct:
    return struct.Struct(f"{count}d")


def _mismatch(spec: TensorSpec, found: Array, data: Any) -> WrongDatatype | WrongShape | WrongValue:
    kind = found.dtype.kind
    if kind == "O":
        culprits = [value for value in _values(data) if not isinstance(value, int | float)][:1]
        if not culprits:
            largest = max((value for value in _values(data) if type(value) is int), key=abs, default=0)
            return WrongValue(f"input {spec.name!r} holds {short(largest)}, which {spec.datatype} cannot")
        shown = "null" if culprits[0] is None else f"a {type(culprits[0]).__name__}"
        return WrongDatatype(f"input {spec.name!r} holds {shown}, expected {spec.datatype}")
    if kind == "f" and found.size and not np.isfinite(found).all():
        return WrongValue(f"input {spec.name!r} holds NaN or Infinity, which {spec.datatype} cannot")
    return WrongDatatype(f"input {spec.name!r} holds {_KINDS.get(kind, kind)}, expected {spec.datatype}")


def _ragged(name: str, data: Any) -> WrongShape:
    where = _uneven(data)
    return WrongShape(f"input {name!r} is ragged{': ' + where if where else ''}; rows of one length expected")


def _uneven(data: Any) -> str:
    """Where lists that should be alike are not, "" where they are."""
    sides: list[int] = []
    level = [data]
    while level and isinstance(level[0], list):
        size = len(level[0])
        for number, each in enumerate(level):
            if not isinstance(each, list) or len(each) != size:
                return f"{_place(0, sides)} has {size}, {_held(_place(number, sides), each)}"
        sides.append(size)
        level = [value for each in level for value in each]
    for number, each in enumerate(level):
        if isinstance(each, list):
            return f"{_place(0, sides)} is a value, {_held(_place(number, sides), each)}"
    return ""


def _place(number: int, sides: list[int]) -> str:
    return "".join(f"[{place}]" for place in np.unravel_index(number, sides)) if sides else "it"


def _held(place: str, value: Any) -> str:
    return f"{place} has {len(value)}" if isinstance(value, list) else f"{place} is a value"


class _Ragged(Exception):
    pass


def _strings(name: str, data: Any) -> Array:
    shape: list[int] = []
    level = data
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    flat: list[bytes] = []
    try:
        _flatten(name, data, shape, 0, flat)
    except _Ragged as error:
        raise _ragged(name, data) from error
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _flatten(name: str, data: Any, shape: list[int], depth: int, into: list[bytes]) -> None:
    if depth == len(shape):
        if isinstance(data, list):
            raise _Ragged
        if isinstance(data, bytes):
            into.append(data)
        elif isinstance(data, str):
            into.append(data.encode("utf-8", "surrogatepass"))
        else:
            raise WrongDatatype(f"input {name!r} holds {type(data).__name__}, expected BYTES (strings)")
        return
    if not isinstance(data, list) or len(data) != shape[depth]:
        raise _Ragged
    for each in data:
        _flatten(name, each, shape, depth + 1, into)
