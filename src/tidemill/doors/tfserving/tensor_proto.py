"""TensorFlow's `TensorProto` to arrays and back: pure; runs in the owner process.

Every form of it is read. Answers use the typed fields, because stock clients read `.float_val` and its kin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

import numpy as np

from tidemill.core import schemas
from tidemill.core.errors import MalformedRequest, RequestTooLarge, WrongDatatype, WrongShape, WrongValue
from tidemill.core.schemas import wire
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import DATATYPES, DTYPES, Array
from tidemill.doors.json_values import RANK_MAX

Message: TypeAlias = Any
"""A message of the `tensorflow` packages; its fields are known at run time only."""

TensorProto = schemas.message("tensorflow.TensorProto")
TensorShapeProto = schemas.message("tensorflow.TensorShapeProto")

HELD_HEADS = 4096


@dataclass(frozen=True, slots=True)
class Form:
    """How one datatype stands in a TensorProto: its DataType, and the field of its values with the field's number."""

    datatype: str
    code: int
    field: str
    number: int


FIELDS = {
    "FP32": ("float_val", 5),
    "FP64": ("double_val", 6),
    "INT8": ("int_val", 7),
    "INT16": ("int_val", 7),
    "INT32": ("int_val", 7),
    "UINT8": ("int_val", 7),
    "UINT16": ("int_val", 7),
    "BYTES": ("string_val", 8),
    "INT64": ("int64_val", 10),
    "BOOL": ("bool_val", 11),
    "FP16": ("half_val", 13),
    "BF16": ("half_val", 13),
    "UINT32": ("uint32_val", 16),
    "UINT64": ("uint64_val", 17),
}
FORM_OF_DATATYPE = {name: Form(name, TF_NUMBERS[name], *place) for name, place in FIELDS.items()}
FORM_OF_CODE = {form.code: form for form in FORM_OF_DATATYPE.values()}
PACKED = frozenset({"FP32", "FP64", "BOOL"})
"""Datatypes whose packed field is the array's own bytes."""
HALVES = frozenset({"FP16", "BF16"})
"""Datatypes that travel as the numbers that their bits spell."""


# -- in ----------------------------------------------------------------------------------------------------------------


def tensor(name: str, proto: Message, bytes_max: int) -> Array:
    """One TensorProto as an array, which shares its memory and is read-only where that can be.

    A short message may stand for a long tensor (one value that fills a shape); one beyond `bytes_max` is refused.
    `name` is for the message. Raises `MalformedRequest`, `RequestTooLarge`, `WrongDatatype`, `WrongShape` or
    `WrongValue`.
    """
    form = FORM_OF_CODE.get(proto.dtype)
    if form is None:
        raise WrongDatatype(f"input {name!r} has dtype {spoken(proto.dtype)}, expected one of {_known()}")
    dtype = DTYPES[form.datatype]
    shape = _shape(name, proto.tensor_shape)
    count = prod(shape)
    content = proto.tensor_content
    values = _from_content(name, content, form, dtype) if content else _from_field(name, proto, form, dtype)
    if len(values) != count:
        if content or len(values) > count:
            raise WrongShape(f"input {name!r} has {len(values)} values, expected {count} for shape {list(shape)}")
        size = _bytes_of(values, count)
        if size > bytes_max:
            raise RequestTooLarge(
                f"input {name!r} has shape {list(shape)}: {size} bytes, the most allowed is {bytes_max}"
                " (--body-bytes-max)"
            )
        values = _filled(values, count)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise WrongShape(f"input {name!r} has shape {list(shape)}: {error}") from error


def _shape(name: str, proto: Message) -> tuple[int, ...]:
    if proto.unknown_rank:
        raise WrongShape(f"input {name!r} has a shape of unknown rank; a request's tensors have sizes")
    if len(proto.dim) > RANK_MAX:
        raise WrongShape(f"input {name!r} has {len(proto.dim)} dimensions, at most {RANK_MAX} are served")
    shape = tuple([dim.size for dim in proto.dim[:]])
    if shape and min(shape) < 0:
        raise WrongShape(f"input {name!r} has shape {list(shape)}; a request's dimensions are 0 or more")
    return shape


def _from_content(name: str, content: bytes, form: Form, dtype: np.dtype[Any]) -> Array:
    if form.datatype == "BYTES":
        raise MalformedRequest(f"input {name!r} is DT_STRING in tensor_content; send strings in string_val")
    if len(content) % dtype.itemsize:
        raise WrongShape(
            f"input {name!r} has {len(content)} bytes in tensor_content, not a multiple of {dtype.itemsize}"
            f" for {spoken(form.code)}"
        )
    if form.datatype == "BOOL" and np.frombuffer(content, np.uint8).max() > 1:
        raise WrongValue(f"input {name!r} is DT_BOOL and has bytes other than 0 and 1 in tensor_content")
    return np.frombuffer(content, dtype)


def _from_field(name: str, proto: Message, form: Form, dtype: np.dtype[Any]) -> Array:
    held = getattr(proto, form.field)
    if form.datatype == "BYTES":
        strings = np.empty(len(held), object)
        strings[:] = held
        return strings
    if held and form.datatype in PACKED:
        try:
            data = wire.payload(proto.SerializeToString(), form.number)
        except ValueError:
            data = None
        if data is not None:
            return np.frombuffer(data, dtype)
    half = form.datatype in HALVES
    try:
        values = np.fromiter(held[:], np.uint16 if half else dtype, len(held))
    except OverflowError as error:
        raise WrongValue(
            f"input {name!r} has values from {min(held)} to {max(held)} in {form.field}, which do not fit"
            f" {spoken(form.code)}"
        ) from error
    return values.view(dtype) if half else values


def _bytes_of(values: Array, count: int) -> int:
    """What `count` values take when the last of `values` goes on to the end; a string may be long."""
    size = count * values.dtype.itemsize
    if values.dtype == object and len(values):
        size += (count - len(values)) * len(values[-1])
    return size


def _filled(values: Array, count: int) -> Array:
    """As TensorFlow reads them: the last value goes on to the end, and no value at all means zeros."""
    filled = np.empty(count, values.dtype)
    filled[: len(values)] = values
    if len(values):
        filled[len(values) :] = values[-1]
    else:
        filled[:] = b"" if values.dtype == object else 0
    return filled


def spoken(code: int) -> str:
    names: Mapping[int, Any] = TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    return str(names[code].name) if code in names else f"{code}"


def _known() -> str:
    return ", ".join(spoken(code) for code in FORM_OF_CODE)


# -- out ---------------------------------------------------------------------------------------------------------------


def shape_proto(shape: tuple[int, ...]) -> Message:
    return TensorShapeProto(dim=[{"size": size} for size in shape])


@lru_cache(maxsize=HELD_HEADS)
def _head(datatype: str, shape: tuple[int, ...]) -> bytes:
    proto = TensorProto(dtype=FORM_OF_DATATYPE[datatype].code, tensor_shape=shape_proto(shape))
    return bytes(proto.SerializeToString())


@lru_cache(maxsize=HELD_HEADS)
def before_values(datatype: str, shape: tuple[int, ...]) -> bytes:
    """What stands in a TensorProto before the bytes of an array whose datatype is one of `PACKED`."""
    size = prod(shape) * DTYPES[datatype].itemsize
    head = _head(datatype, shape)
    return head + wire.lead(FORM_OF_DATATYPE[datatype].number, size) if size else head


def encoded(array: Array) -> bytes:
    """A TensorProto: a head, and behind it the values in the field of their type."""
    datatype = DATATYPES[array.dtype]
    if datatype in PACKED:
        return before_values(datatype, array.shape) + array.tobytes()
    form = FORM_OF_DATATYPE[datatype]
    head = _head(datatype, array.shape)
    numbers = array.view(np.uint16) if datatype in HALVES else array
    values = TensorProto()
    getattr(values, form.field).extend(numbers.ravel().tolist())
    return head + bytes(values.SerializeToString())
