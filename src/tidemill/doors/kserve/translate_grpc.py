"""KServe V2 over gRPC to tensors and back: pure, no input or output; runs in the owner process.

Both ways of carrying values are read: typed `contents`, and `raw_input_contents` (the only one for FP16 and BF16).
Answers are raw, as Triton's are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import MalformedRequest, NotOffered, WrongDatatype, WrongShape, WrongValue
from tidemill.core.request import Predict
from tidemill.core.schemas import wire
from tidemill.core.tensor import DATATYPES, DTYPES, Array, Tensors, TensorSpec
from tidemill.doors.json_values import RANK_MAX
from tidemill.doors.kserve import classes, strings
from tidemill.doors.kserve.translate import NO_SHARED_MEMORY

Message: TypeAlias = Any
"""A message of the `inference` package; its fields are known at run time only."""

ModelInferRequest = schemas.message("inference.ModelInferRequest")
ModelInferResponse = schemas.message("inference.ModelInferResponse")
ModelStreamInferResponse = schemas.message("inference.ModelStreamInferResponse")
ModelMetadataResponse = schemas.message("inference.ModelMetadataResponse")

CONTENTS = {
    "BOOL": ("bool_contents", 1),
    "INT8": ("int_contents", 2),
    "INT16": ("int_contents", 2),
    "INT32": ("int_contents", 2),
    "INT64": ("int64_contents", 3),
    "UINT8": ("uint_contents", 4),
    "UINT16": ("uint_contents", 4),
    "UINT32": ("uint_contents", 4),
    "UINT64": ("uint64_contents", 5),
    "FP32": ("fp32_contents", 6),
    "FP64": ("fp64_contents", 7),
    "BYTES": ("bytes_contents", 8),
}
"""Datatype -> the field of InferTensorContents that holds its values, and its number."""

PACKED = frozenset({"BOOL", "FP32", "FP64"})
"""Datatypes whose packed field is the array's own bytes."""

RAW_OUTPUT_CONTENTS = 6
HELD_HEADS = 4096


# -- in ----------------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a ModelInferRequest says besides tensors and outputs. `timeout_s` is None for none."""

    model: str
    version: str
    id: str
    timeout_s: float | None


def asked(message: Message) -> Asked:
    """Raises `MalformedRequest`."""
    return Asked(message.model_name, message.model_version, message.id, timeout_s(message))


def predict(message: Message) -> Predict:
    """The tensors of a ModelInferRequest and the outputs it wants, not yet held against a signature.

    Arrays share the message's memory and are read-only where that can be. Raises `MalformedRequest`, `WrongDatatype`,
    `WrongShape` or `WrongValue`.
    """
    inputs: dict[str, Array] = {}
    # Slices are lists, which walk quicker than the message's own sequences.
    raw = message.raw_input_contents[:]
    tensors = message.inputs[:]
    if raw:
        if len(raw) != len(tensors):
            raise MalformedRequest(
                f"there are {len(raw)} entries in raw_input_contents for {len(tensors)} inputs; send one for each input"
            )
        for tensor, data in zip(tensors, raw, strict=True):
            if tensor.HasField("contents"):
                raise MalformedRequest(
                    f"input {tensor.name!r} has contents, and the request has raw_input_contents too; send one of them"
                )
            _add(inputs, tensor, _from_raw(tensor.name, tensor.datatype, tuple(tensor.shape[:]), data))
    else:
        for tensor in tensors:
            _add(inputs, tensor, _from_contents(tensor))
    return Predict(inputs, _wanted(message.outputs) if message.outputs else ())


def parameters(entries: Mapping[str, Message]) -> dict[str, bool | int | float | str]:
    """A map of InferParameter as plain values. Raises `MalformedRequest` for one without a value."""
    found = {}
    for name, parameter in entries.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise MalformedRequest(f"parameter {name!r} has no value; set bool_param, int64_param or another")
        found[name] = getattr(parameter, choice)
    return found


def timeout_s(message: Message) -> float | None:
    """Triton's request parameter `timeout`, in microseconds there; 0 is none. Raises `MalformedRequest`."""
    if not message.parameters:
        return None
    given = parameters(message.parameters).get("timeout", 0)
    if type(given) is not int or given < 0:
        raise MalformedRequest(f"parameter 'timeout' is {given!r}, expected microseconds")
    return given / 1e6 if given else None


def _add(inputs: dict[str, Array], tensor: Message, array: Array) -> None:
    name = tensor.name
    if name in inputs:
        raise MalformedRequest(f"input {name!r} is there twice; send it once")
    if tensor.parameters:
        _check_parameters(f"input {name!r}", tensor.parameters)
    inputs[name] = array


def _wanted(outputs: Iterable[Message]) -> tuple[str, ...]:
    for output in outputs:
        if output.parameters:
            _check_parameters(f"output {output.name!r}", output.parameters)
    return tuple(output.name for output in outputs)


def _check_parameters(place: str, entries: Mapping[str, Message]) -> None:
    """Those that say where a tensor lies are refused, for ignoring them would answer something else."""
    for name in entries:
        if name.startswith("shared_memory"):
            raise NotOffered(f"{place} has parameter {name!r}: {NO_SHARED_MEMORY}")


def wanted_classes(message: Message) -> dict[str, int]:
    """The outputs of a ModelInferRequest of which so many largest values are wanted. Raises `MalformedRequest`."""
    found = {}
    for output in message.outputs:
        if "classification" in output.parameters:
            given = parameters({"classification": output.parameters["classification"]})["classification"]
            if count := classes.count_of(output.name, given):
                found[output.name] = count
    return found


def _known(name: str, datatype: str) -> np.dtype[Any]:
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise WrongDatatype(f"input {name!r} has datatype {datatype!r}, expected one of {', '.join(DTYPES)}")
    return dtype


def _count(name: str, shape: tuple[int, ...]) -> int:
    if len(shape) > RANK_MAX:
        raise WrongShape(f"input {name!r} has {len(shape)} dimensions, at most {RANK_MAX} are served")
    if shape and min(shape) < 0:
        raise WrongShape(f"input {name!r} has shape {list(shape)}; a request's dimensions are 0 or more")
    return prod(shape)


def _shaped(name: str, values: Array, shape: tuple[int, ...]) -> Array:
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise WrongShape(f"input {name!r} has shape {list(shape)}: {error}") from error


def _from_raw(name: str, datatype: str, shape: tuple[int, ...], data: bytes) -> Array:
    dtype = _known(name, datatype)
    count = _count(name, shape)
    if datatype == "BYTES":
        return _shaped(name, strings.split(name, count, data), shape)
    if len(data) != count * dtype.itemsize:
        raise WrongShape(
            f"input {name!r} has {len(data)} bytes in raw_input_contents,"
            f" expected {count * dtype.itemsize} for {datatype} {list(shape)}"
        )
    if datatype == "BOOL" and count and np.frombuffer(data, np.uint8).max() > 1:
        raise WrongValue(f"input {name!r} is BOOL and has bytes other than 0 and 1 in raw_input_contents")
    return _shaped(name, np.frombuffer(data, dtype), shape)


def _from_contents(tensor: Message) -> Array:
    name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape[:])
    _known(name, datatype)
    count = _count(name, shape)
    if datatype not in CONTENTS:
        raise MalformedRequest(f"input {name!r} is {datatype}, whose values travel in raw_input_contents only")
    field, _ = CONTENTS[datatype]
    held = getattr(tensor.contents, field)
    if len(held) != count:
        raise WrongShape(
            f"input {name!r} has {len(held)} values in {field}, expected {count} for {datatype} {list(shape)}"
        )
    return _shaped(name, _values(tensor, held), shape)


def _values(tensor: Message, held: Any) -> Array:
    datatype = tensor.datatype
    if datatype == "BYTES":
        strings = np.empty(len(held), object)
        strings[:] = held
        return strings
    if held and datatype in PACKED:
        try:
            data = wire.payload(tensor.contents.SerializeToString(), CONTENTS[datatype][1])
        except ValueError:
            data = None
        if data is not None:
            return np.frombuffer(data, DTYPES[datatype])
    try:
        return np.fromiter(held[:], DTYPES[datatype], len(held))
    except OverflowError as error:
        raise WrongValue(
            f"input {tensor.name!r} has values from {min(held)} to {max(held)}, which do not fit {datatype}"
        ) from error


# -- out ---------------------------------------------------------------------------------------------------------------


FINAL = ModelInferResponse(parameters={"triton_final_response": {"bool_param": True}}).SerializeToString()
INFER_RESPONSE = 2


def streamed(name: str, version: int, request_id: str, tensors: Tensors) -> bytes:
    """An encoded ModelStreamInferResponse: `response`, marked as the one and last answer to its request."""
    whole = response(name, version, request_id, tensors)
    return b"".join((wire.lead(INFER_RESPONSE, len(whole) + len(FINAL)), whole, FINAL))


def stream_refusal(body: bytes, words: str) -> bytes:
    """An encoded ModelStreamInferResponse that tells why the request in `body` was refused, and which it was."""
    try:
        asked = ModelInferRequest.FromString(body)
    except DecodeError:
        asked = ModelInferRequest()
    about = {"model_name": asked.model_name, "model_version": asked.model_version, "id": asked.id}
    refusal = ModelStreamInferResponse(error_message=words, infer_response=about)
    refusal.infer_response.parameters["triton_final_response"].bool_param = True
    return bytes(refusal.SerializeToString())


def response(name: str, version: int, request_id: str, tensors: Tensors) -> bytes:
    """An encoded ModelInferResponse. `request_id` is the request's `id`, empty for none."""
    parts: list[Any] = [_model(name, version)]
    if request_id:
        parts.append(ModelInferResponse(id=request_id).SerializeToString())
    for output, array in tensors.items():
        parts.append(_output(output, DATATYPES[array.dtype], array.shape))
    for array in tensors.values():
        data = _raw(array)
        parts.append(wire.lead(RAW_OUTPUT_CONTENTS, len(data)))
        parts.append(data)
    return b"".join(parts)


def metadata(served: Served) -> Message:
    """A ModelMetadataResponse."""
    return ModelMetadataResponse(
        name=served.name,
        versions=[str(served.version)],
        platform=served.platform,
        inputs=[_tensor_metadata(spec) for spec in served.signature.inputs],
        outputs=[_tensor_metadata(spec) for spec in served.signature.outputs],
    )


def _tensor_metadata(spec: TensorSpec) -> Message:
    # A free rank has no form in this protocol; one free dimension comes closest, and REST says the same.
    shape = (-1,) if spec.shape is None else spec.shape
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=shape)


@lru_cache(maxsize=HELD_HEADS)
def _model(name: str, version: int) -> bytes:
    return bytes(ModelInferResponse(model_name=name, model_version=str(version)).SerializeToString())


@lru_cache(maxsize=HELD_HEADS)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    output = ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
    return bytes(ModelInferResponse(outputs=[output]).SerializeToString())


def _raw(array: Array) -> bytes:
    if array.dtype == object:
        return b"".join(strings.pieces(array))
    return array.tobytes()
