"""TensorFlow Serving's Predict, metadata and status messages to plain values and back: pure; in the owner process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import MalformedRequest
from tidemill.core.request import Predict
from tidemill.core.schemas import wire
from tidemill.core.tensor import DATATYPES, DTYPES, Signature, Tensors, TensorSpec
from tidemill.doors.tfserving.spec import DEFAULT_SIGNATURE, STATES, all_of, health
from tidemill.doors.tfserving.tensor_proto import (
    FORM_OF_DATATYPE,
    HELD_HEADS,
    PACKED,
    Message,
    TensorShapeProto,
    before_values,
    encoded,
    shape_proto,
    tensor,
)

GetModelMetadataResponse = schemas.message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusResponse = schemas.message("tensorflow.serving.GetModelStatusResponse")
ModelSpec = schemas.message("tensorflow.serving.ModelSpec")
ModelVersionStatus = schemas.message("tensorflow.serving.ModelVersionStatus")
SignatureDefMap = schemas.message("tensorflow.serving.SignatureDefMap")
SignatureDef = schemas.message("tensorflow.SignatureDef")
TensorInfo = schemas.message("tensorflow.TensorInfo")

STATE_NUMBERS = {value.name: value.number for value in ModelVersionStatus.DESCRIPTOR.enum_types_by_name["State"].values}
HELD_SPECS = 4096


class Asked(NamedTuple):
    """What a ModelSpec asks for: the version, or the label; neither for the newest."""

    model: str
    version: int | None
    label: str | None
    signature: str


def asked(spec: Message) -> Asked:
    return Asked(spec.name, *asked_version(spec), spec.signature_name)


def asked_version(spec: Message) -> tuple[int | None, str | None]:
    """The version, or the label, that a ModelSpec asks for; neither for the newest."""
    choice = spec.WhichOneof("version_choice")
    if choice is None:
        return None, None
    return (None, spec.version_label) if choice == "version_label" else (int(spec.version.value), None)


def predict(message: Message, bytes_max: int, signature: str = "") -> Predict:
    """The tensors of a PredictRequest and the outputs it wants, not yet held against a signature.

    Raises as `tensor_proto.tensor` does, for tensors of more than `bytes_max` together too.
    """
    inputs = {}
    left = bytes_max
    for name, proto in message.inputs.items():
        array = inputs[name] = tensor(name, proto, left)
        left -= array.nbytes
    wanted = tuple(message.output_filter[:])
    if len(set(wanted)) != len(wanted):
        raise MalformedRequest(f"output_filter names an output twice: {', '.join(wanted)}")
    return Predict(inputs, wanted, signature=signature)


def response(name: str, number: int, signature: str, tensors: Tensors) -> bytes:
    """An encoded PredictResponse of version `number` of model `name`."""
    parts: list[bytes] = []
    for output, array in tensors.items():
        datatype = DATATYPES[array.dtype]
        if datatype in PACKED:
            parts += (_before_values(output, datatype, array.shape), array.tobytes())
        else:
            body = encoded(array)
            parts += (_before(output, len(body)), body)
    parts.append(answered(name, number, signature))
    return b"".join(parts)


def _before(output: str, size: int) -> bytes:
    """What stands in a PredictResponse before the `size` bytes of one output's TensorProto."""
    key, entry = _key(output), wire.lead(2, size)
    return wire.lead(1, len(key) + len(entry) + size) + key + entry


@lru_cache(maxsize=HELD_HEADS)
def _before_values(output: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """The same up to the bytes of its values."""
    head = before_values(datatype, shape)
    return _before(output, len(head) + prod(shape) * DTYPES[datatype].itemsize) + head


@lru_cache(maxsize=HELD_SPECS)
def answered(name: str, number: int, signature: str) -> bytes:
    """The field `model_spec`, number 2 of every response, encoded. `signature` is what was asked for."""
    spec = model_spec(name, number, signature)
    return wire.lead(2, len(spec)) + spec


@lru_cache(maxsize=HELD_SPECS)
def model_spec(name: str, number: int, signature: str) -> bytes:
    """An encoded ModelSpec of what answered."""
    spec = ModelSpec(name=name, version={"value": number}, signature_name=signature or DEFAULT_SIGNATURE)
    return bytes(spec.SerializeToString())


def metadata(served: Served) -> Message:
    """A GetModelMetadataResponse with the one field that TensorFlow Serving has, `signature_def`: all signatures
    that are served."""
    told = SignatureDefMap(signature_def={each.name: _definition(each) for each in all_of(served.signature)})
    answer = GetModelMetadataResponse(model_spec=ModelSpec(name=served.name, version={"value": served.version}))
    answer.metadata["signature_def"].Pack(told)
    return answer


def _definition(signature: Signature) -> Message:
    definition = SignatureDef(method_name=signature.method)
    for spec in signature.inputs:
        definition.inputs[spec.name].CopyFrom(_info(spec, signature.name))
    for spec in signature.outputs:
        definition.outputs[spec.name].CopyFrom(_info(spec, signature.name))
    return definition


def status(versions: Sequence[Served]) -> Message:
    """A GetModelStatusResponse, the newest version first."""
    answer = GetModelStatusResponse()
    for served in reversed(versions):
        state = STATE_NUMBERS.get(STATES.get(served.state, served.state), 0)
        told = {"error_code": health(served.state), "error_message": served.reason}
        answer.model_version_status.add(version=served.version, state=state, status=told)
    return answer


def _info(spec: TensorSpec, signature: str) -> Message:
    shape = TensorShapeProto(unknown_rank=True) if spec.shape is None else shape_proto(spec.shape)
    code = FORM_OF_DATATYPE[spec.datatype].code
    return TensorInfo(name=f"{signature}_{spec.name}:0", dtype=code, tensor_shape=shape)


@lru_cache(maxsize=HELD_SPECS)
def _key(name: str) -> bytes:
    encoded_name = name.encode()
    return wire.lead(1, len(encoded_name)) + encoded_name
