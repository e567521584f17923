"""TensorFlow Serving's messages to tensors and back: pure, no input or output; runs in the owner process.

Every form of TensorProto is read. Answers use the typed fields, because stock clients read `.float_val` and its kin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

import numpy as np

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import (
    MalformedRequest,
    RequestTooLarge,
    UnknownSignature,
    UnknownVersion,
    WrongDatatype,
    WrongShape,
    WrongValue,
)
from tidemill.core.request import Predict
from tidemill.core.schemas import wire
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import DATATYPES, DTYPES, Array, Tensors, TensorSpec
from tidemill.doors.json_values import RANK_MAX

Message: TypeAlias = Any
"""A message of the `tensorflow` packages; its fields are known at run time only."""

GetModelMetadataResponse = schemas.message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusResponse = schemas.message("tensorflow.serving.GetModelStatusResponse")
ModelSpec = schemas.message("tensorflow.serving.ModelSpec")
PredictResponse = schemas.message("tensorflow.serving.PredictResponse")
SignatureDefMap = schemas.message("tensorflow.serving.SignatureDefMap")
SignatureDef = schemas.message("tensorflow.SignatureDef")
TensorInfo = schemas.message("tensorflow.TensorInfo")
TensorProto = schemas.message("tensorflow.TensorProto")
TensorShapeProto = schemas.message("tensorflow.TensorShapeProto")

SIGNATURE = "serving_default"
METHOD = "tensorflow/serving/predict"
AVAILABLE = 30
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


def version(spec: Message) -> int | None:
    """The version that a ModelSpec asks for, None for the newest. Raises `UnknownVersion` for a label."""
    choice = spec.WhichOneof("version_choice")
    if choice is None:
        return None
    if choice == "version_label":
        raise UnknownVersion(f"model {spec.name!r} has no label {spec.version_label!r}; ask for a version by number")
    return int(spec.version.value)


def check_signature(spec: Message) -> None:
    """Raises `UnknownSignature` for another signature than the one that every model has, `serving_default`."""
    asked = spec.signature_name
    if asked and asked != SIGNATURE:
        raise UnknownSignature(f"model {spec.name!r} has no signature {asked!r}; it has {SIGNATURE!r}")


def predict(message: Message, bytes_max: int) -> Predict:
    """The tensors of a PredictRequest and the outputs it wants, not yet held against a signature.

    Arrays share the message's memory and are read-only where that can be. A short message may stand for a long tensor
    (one value that fills a shape); one beyond `bytes_max` is refused. Raises `MalformedRequest`, `RequestTooLarge`,
    `WrongDatatype`, `WrongShape` or `WrongValue`.
    """
    inputs = {}
    left = bytes_max
    for name, proto in message.inputs.items():
        array = inputs[name] = tensor(name, proto, left)
        left -= array.nbytes
    wanted = tuple(message.output_filter[:])
    if len(set(wanted)) != len(wanted):
        raise MalformedRequest(f"output_filter names an output twice: {', '.join(wanted)}")
    return Predict(inputs, wanted)


def tensor(name: str, proto: Message, bytes_max: int) -> Array:
    """One TensorProto as an array. Raises as `predict` does; `name` is for the message."""
    form = FORM_OF_CODE.get(proto.dtype)
    if form is None:
        raise WrongDatatype(f"input {name!r} has dtype {_spoken(proto.dtype)}, expected one of {_known()}")
    dtype = DTYPES[form.datatype]
    shape = _shape(name, proto.tensor_shape)
    count = prod(shape)
    content = proto.tensor_content
    values = _from_content(name, content, form, dtype) if content else _from_field(name, proto, form, dtype)
    if len(values) != count:
        if content or len(values) > count:
            raise WrongShape(f"input {name!r} has {len(values)} values, expected {count} for shape {list(shape)}")
        if count * dtype.itemsize > bytes_max:
            raise RequestTooLarge(
                f"input {name!r} has shape {list(shape)}: {count * dtype.itemsize} bytes,"
                f" the most allowed is {bytes_max} (--body-bytes-max)"
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
            f" for {_spoken(form.code)}"
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
            f" {_spoken(form.code)}"
        ) from error
    return values.view(dtype) if half else values


def _filled(values: Array, count: int) -> Array:
    """As TensorFlow reads them: the last value goes on to the end, and no value at all means zeros."""
    filled = np.empty(count, values.dtype)
    filled[: len(values)] = values
    if len(values):
        filled[len(values) :] = values[-1]
    else:
        filled[:] = b"" if values.dtype == object else 0
    return filled


def _spoken(code: int) -> str:
    names: Mapping[int, Any] = TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    return str(names[code].name) if code in names else f"{code}"


def _known() -> str:
    return ", ".join(_spoken(code) for code in FORM_OF_CODE)


# -- out ---------------------------------------------------------------------------------------------------------------


def response(name: str, number: int, tensors: Tensors) -> bytes:
    """An encoded PredictResponse of version `number` of model `name`."""
    parts: list[Any] = []
    for output, array in tensors.items():
        key, body = _key(output), _encoded(array)
        entry = wire.lead(2, len(body))
        parts += (wire.lead(1, len(key) + len(entry) + len(body)), key, entry, body)
    parts.append(_spec(name, number))
    return b"".join(parts)


def metadata(served: Served) -> Message:
    """A GetModelMetadataResponse with the one field that TensorFlow Serving has, `signature_def`."""
    signature = SignatureDef(method_name=METHOD)
    for spec in served.signature.inputs:
        signature.inputs[spec.name].CopyFrom(_info(spec))
    for spec in served.signature.outputs:
        signature.outputs[spec.name].CopyFrom(_info(spec))
    answer = GetModelMetadataResponse(model_spec=ModelSpec(name=served.name, version={"value": served.version}))
    answer.metadata["signature_def"].Pack(SignatureDefMap(signature_def={SIGNATURE: signature}))
    return answer


def status(served: Served) -> Message:
    """A GetModelStatusResponse: what is found is available."""
    state = {"version": served.version, "state": AVAILABLE, "status": {}}
    return GetModelStatusResponse(model_version_status=[state])


def _info(spec: TensorSpec) -> Message:
    shape = TensorShapeProto(unknown_rank=True) if spec.shape is None else _shape_proto(spec.shape)
    code = FORM_OF_DATATYPE[spec.datatype].code
    return TensorInfo(name=f"{SIGNATURE}_{spec.name}:0", dtype=code, tensor_shape=shape)


def _shape_proto(shape: tuple[int, ...]) -> Message:
    return TensorShapeProto(dim=[{"size": size} for size in shape])


@lru_cache(maxsize=HELD_HEADS)
def _spec(name: str, number: int) -> bytes:
    spec = ModelSpec(name=name, version={"value": number}, signature_name=SIGNATURE)
    return bytes(PredictResponse(model_spec=spec).SerializeToString())


@lru_cache(maxsize=HELD_HEADS)
def _key(name: str) -> bytes:
    encoded = name.encode()
    return wire.lead(1, len(encoded)) + encoded


@lru_cache(maxsize=HELD_HEADS)
def _head(datatype: str, shape: tuple[int, ...]) -> bytes:
    proto = TensorProto(dtype=FORM_OF_DATATYPE[datatype].code, tensor_shape=_shape_proto(shape))
    return bytes(proto.SerializeToString())


def _encoded(array: Array) -> bytes:
    """A TensorProto: a head, and behind it the values in the field of their type."""
    datatype = DATATYPES[array.dtype]
    form = FORM_OF_DATATYPE[datatype]
    head = _head(datatype, array.shape)
    if datatype in PACKED:
        return b"".join((head, wire.lead(form.number, array.nbytes), array.tobytes())) if array.size else head
    numbers = array.view(np.uint16) if datatype in HALVES else array
    values = TensorProto()
    getattr(values, form.field).extend(numbers.ravel().tolist())
    return head + bytes(values.SerializeToString())
