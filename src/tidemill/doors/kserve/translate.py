"""KServe V2 over REST, both ways, pure: JSON with the binary tensor extension."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from tidemill.core.errors import MalformedRequest, NotOffered, WrongDatatype, WrongShape, WrongValue
from tidemill.core.request import Predict
from tidemill.core.tensor import DATATYPES, Array, Signature, Tensors, TensorSpec
from tidemill.core.text import short
from tidemill.doors import json_values, quick_json
from tidemill.doors.json_values import RANK_MAX
from tidemill.doors.kserve import classes, heads, strings
from tidemill.doors.numbers import narrowed

D = TypeVar("D")
SIDE_MAX = 2**31
NO_SHARED_MEMORY = "shared memory is not served; send the tensor itself, in bytes"


class _Input(msgspec.Struct, Generic[D], gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: D | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class _Asked(msgspec.Struct, Generic[D], gc=False):
    inputs: list[_Input[D]]
    id: str = ""
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


_RAW = msgspec.json.Decoder(_Asked[msgspec.Raw])
_FLOATS = msgspec.json.Decoder(list[float])
_ONLY_FLOATS = msgspec.json.Decoder(_Asked[list[float]])
_ONE_PASS_BYTES = 4096
"""Bodies from this size on, of models that take floats alone, are read in one pass; raw values cost a second."""
_QUICK_BYTES = 65536
"""Bodies from this size on are worth a parser of their own."""
_FLOAT_TYPES = frozenset({"FP32", "FP64"})


class Question:
    """A parsed infer request. `binary` names the outputs wanted as bytes; None is all of them. `classes` says of which
    outputs so many largest values are wanted instead."""

    __slots__ = ("binary", "classes", "id", "timeout_s", "work")

    def __init__(
        self,
        work: Predict,
        request_id: str,
        timeout_s: float | None,
        binary: Collection[str] | None,
        wanted: Mapping[str, int] | None = None,
    ) -> None:
        self.work = work
        self.classes = wanted
        self.id = request_id
        self.timeout_s = timeout_s
        self.binary = binary


def question(signature: Signature, body: bytes, json_length: int) -> Question:
    """`json_length` is the header `Inference-Header-Content-Length`, -1 when absent.

    Raises the errors of the branch `CallerError` that tell what is wrong with the request.
    """
    if json_length < 0:
        asked, tail = _only_floats(signature, body) or _decoded(body), _NO_BYTES
    elif json_length <= len(body):
        if (layout := heads.find(signature, body, json_length)) is not None:
            work = Predict(layout.tensors(body, json_length), layout.outputs)
            return Question(work, "", layout.timeout_s, layout.binary, layout.wanted)
        whole = memoryview(body)
        asked, tail = _decoded(whole[:json_length]), whole[json_length:]
    else:
        raise MalformedRequest(f"inference-header-content-length is {json_length}, the body has {len(body)} bytes")
    tensors: dict[str, Array] = {}
    used = 0
    for each in asked.inputs:
        if each.name in tensors:
            raise MalformedRequest(f"input {short(each.name)} is given twice")
        array, taken = _array(signature, each, tail[used:] if tail else tail)
        tensors[each.name] = array
        used += taken
    if used != len(tail):
        raise MalformedRequest(f"the body has {len(tail)} bytes of tensors, its inputs claim {used}")
    signature.check(tensors)
    if asked.outputs is None and asked.parameters is None and json_length < 0:
        return Question(Predict(tensors), asked.id, None, ())
    outputs, binary, wanted = _outputs(asked, signature)
    timeout_s = _timeout(asked.parameters)
    if used and not asked.id and all(each.data is msgspec.UNSET for each in asked.inputs):
        heads.learn(signature, body[:json_length], tensors, outputs, timeout_s, binary, wanted)
    return Question(Predict(tensors, outputs), asked.id, timeout_s, binary, wanted)


_NO_BYTES = memoryview(b"")


def _only_floats(signature: Signature, body: bytes) -> _Asked[Any] | None:
    """With arrays as data; None for what is not flat lists of numbers throughout: `_decoded` finds out what else it
    is."""
    if len(body) < _ONE_PASS_BYTES or any(spec.datatype not in _FLOAT_TYPES for spec in signature.inputs):
        return None
    try:
        if len(body) >= _QUICK_BYTES and (told := quick_json.with_arrays(body)) is not None:
            return msgspec.convert(told, _Asked[Any])
        asked: _Asked[Any] = _ONLY_FLOATS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for each in asked.inputs:
        if each.data is not msgspec.UNSET:
            each.data = json_values.doubles(each.data)
    return asked


def _decoded(body: bytes | memoryview) -> _Asked[Any]:
    try:
        return _RAW.decode(body)
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"the body is no V2 infer request: {str(error)[:200]}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = json_values.parse(body)  # raises, unless what stands there is NaN or Infinity
    try:
        return msgspec.convert(value, _Asked[Any])
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"the body is no V2 infer request: {str(error)[:200]}") from error


def _array(signature: Signature, given: _Input[Any], tail: memoryview) -> tuple[Array, int]:
    """The input and how many bytes of `tail` it took."""
    name, shape = given.name, given.shape
    spec = signature.input(name)
    if given.datatype != spec.datatype:
        raise WrongDatatype(f"input {name!r} has datatype {short(given.datatype)}, expected {spec.datatype}")
    if len(shape) > RANK_MAX:  # first: the product of very many sides is a number of megabytes
        raise WrongShape(f"input {name!r} has {len(shape)} dimensions, at most {RANK_MAX} are served")
    count = 1
    for side in shape:
        if not 0 <= side <= SIDE_MAX:
            raise WrongShape(f"input {name!r} has shape {short(shape)}, expected sizes from 0 to {SIDE_MAX}")
        count *= side
    if given.parameters is not None and "shared_memory_region" in given.parameters:
        raise NotOffered(f"input {short(name)}: {NO_SHARED_MEMORY}")
    if given.parameters is not None and "binary_data_size" in given.parameters:
        size = given.parameters["binary_data_size"]
        if type(size) is not int or not 0 <= size <= len(tail):
            raise MalformedRequest(
                f"input {name!r}: binary_data_size is {short(size)}, the body has {len(tail)} bytes left"
            )
        return _shaped(name, from_bytes(spec, count, tail[:size]), shape), size
    if given.data is msgspec.UNSET:
        raise MalformedRequest(f"input {name!r} has neither `data` nor parameters.binary_data_size")
    array = _from_json(spec, given.data)
    if array.size != count:
        raise WrongShape(f"input {name!r} has {array.size} values, its shape {short(shape)} wants {count}")
    return _shaped(name, array, shape), 0


def _shaped(name: str, array: Array, shape: list[int]) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:  # an empty one whose other sides are beyond all memory
        raise WrongShape(f"input {name!r} has shape {short(shape)}: {error}") from error


def _from_json(spec: TensorSpec, data: Any) -> Array:
    if isinstance(data, np.ndarray):
        return narrowed(spec, data)
    if type(data) is not msgspec.Raw:
        return json_values.to_array(spec, data, mixed=True)
    if spec.datatype in _FLOAT_TYPES:
        try:
            flat = _FLOATS.decode(data)  # the common case, and checked as it is read
        except msgspec.ValidationError:
            return json_values.to_array(spec, json_values.parse(memoryview(data)), mixed=True)
        return json_values.floats(spec, flat)
    text = bytes(data)
    return json_values.to_array(spec, json_values.parse(text), b'"' in text or b"true" in text or b"false" in text)


def from_bytes(spec: TensorSpec, count: int, raw: bytes | memoryview) -> Array:
    """`count` little-endian values, flat; strings are each led by their length in four bytes. Raises `WrongShape`,
    `WrongValue`."""
    if spec.datatype == "BYTES":
        return strings.split(spec.name, count, raw)
    if len(raw) != count * spec.dtype.itemsize:
        raise WrongShape(
            f"input {spec.name!r} has {len(raw)} bytes, its shape wants {count} values of {spec.datatype}:"
            f" {count * spec.dtype.itemsize} bytes"
        )
    if spec.datatype == "BOOL" and count and np.frombuffer(raw, np.uint8).max() > 1:
        raise WrongValue(f"input {spec.name!r} holds a byte that is neither 0 nor 1, expected BOOL")
    return np.frombuffer(raw, spec.dtype)


def to_bytes(array: Array) -> bytes:
    """The counterpart of `from_bytes`."""
    if array.dtype == object:
        return b"".join(strings.pieces(array))
    return array.tobytes()


def _outputs(
    asked: _Asked[Any], signature: Signature
) -> tuple[tuple[str, ...], Collection[str] | None, dict[str, int]]:
    """The outputs wanted, those of them in bytes (None: all), and those of which the largest values are wanted."""
    all_binary = bool(asked.parameters and asked.parameters.get("binary_data_output", False))
    if not asked.outputs:
        return (), None if all_binary else (), {}
    binary = []
    wanted: dict[str, int] = {}
    for each in asked.outputs:
        own = each.parameters or {}
        if "shared_memory_region" in own:
            raise NotOffered(f"output {short(each.name)}: {NO_SHARED_MEMORY}")
        if count := classes.count_of(each.name, own.get("classification", 0)):
            wanted[each.name] = count
        if own.get("binary_data", all_binary):
            binary.append(each.name)
    outputs = tuple(each.name for each in asked.outputs)
    if len(set(outputs)) != len(outputs):
        raise MalformedRequest(f"an output is asked for twice: {short(outputs)}")
    signature.check_outputs(outputs)
    if wanted:
        classes.check(signature, wanted)
    return outputs, binary, wanted


def _timeout(parameters: dict[str, Any] | None) -> float | None:
    """Triton's request parameter `timeout`, in microseconds; 0 is none."""
    given = parameters.get("timeout") if parameters else None
    if given is None:
        return None
    if type(given) is not int or given < 0:
        raise MalformedRequest(f"parameters.timeout is {short(given)}, expected microseconds")
    return given / 1e6 if given else None


def answer(model: str, version: int, asked: Question, tensors: Tensors) -> tuple[bytes, int]:
    """The body and the length of its JSON part, -1 when all of it is JSON."""
    if not asked.id and _all_binary(asked, tensors):
        head = heads.answer(model, version, tensors)
        return b"".join((head, *[array.tobytes() for array in tensors.values()])), len(head)
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, array in tensors.items():
        told: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype], "shape": array.shape}
        if asked.binary is None or name in asked.binary:
            raw = to_bytes(array)
            tail.append(raw)
            told["parameters"] = {"binary_data_size": len(raw)}
        else:
            told["data"] = _flat(array)
        outputs.append(told)
    reply: dict[str, Any] = {"model_name": model, "model_version": str(version), "outputs": outputs}
    if asked.id:
        reply["id"] = asked.id
    if not tail:
        return json_values.render(reply), -1
    head = json_values.render(reply)
    return b"".join((head, *tail)), len(head)


def _all_binary(asked: Question, tensors: Tensors) -> bool:
    for name, array in tensors.items():
        if array.dtype == object or not (asked.binary is None or name in asked.binary):
            return False
    return bool(tensors)


def _flat(array: Array) -> Any:
    if array.dtype == object:
        return [value.decode("utf-8", "replace") for value in array.ravel()]
    return array.ravel()


def metadata(name: str, versions: list[int], platform: str, signature: Signature) -> dict[str, Any]:
    """A tensor of any rank is told with the shape [-1], as nearest as V2 can say."""

    def told(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "datatype": s.datatype, "shape": [-1] if s.shape is None else list(s.shape)} for s in specs
        ]

    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": platform,
        "inputs": told(signature.inputs),
        "outputs": told(signature.outputs),
    }
