"""KServe V2 over REST, both ways, pure: JSON with the binary tensor extension."""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

import numpy as np

from tidemill.core.errors import MalformedRequest, WrongDatatype, WrongShape, WrongValue
from tidemill.core.request import Predict
from tidemill.core.tensor import DATATYPES, Array, Signature, Tensors, TensorSpec
from tidemill.doors import json_values

RANK_MAX = 32


class Question:
    """A parsed infer request. `binary` names the outputs wanted as bytes; None is all of them."""

    __slots__ = ("binary", "id", "timeout_s", "work")

    def __init__(self, work: Predict, request_id: str, timeout_s: float | None, binary: Collection[str] | None) -> None:
        self.work = work
        self.id = request_id
        self.timeout_s = timeout_s
        self.binary = binary


def question(signature: Signature, body: bytes, json_length: int) -> Question:
    """`json_length` is the header `Inference-Header-Content-Length`, -1 when absent.

    Raises the errors of the branch `CallerError` that tell what is wrong with the request.
    """
    tail = memoryview(b"")
    if json_length >= 0:
        if json_length > len(body):
            raise MalformedRequest(f"inference-header-content-length is {json_length}, the body has {len(body)} bytes")
        whole = memoryview(body)
        asked, tail = json_values.parse(whole[:json_length]), whole[json_length:]
    else:
        asked = json_values.parse(body)
    if not isinstance(asked, dict):
        raise MalformedRequest(f"the body is a JSON {type(asked).__name__}, expected an object with `inputs`")
    given = asked.get("inputs")
    if not isinstance(given, list):
        raise MalformedRequest("the body has no list `inputs`")
    tensors: dict[str, Array] = {}
    used = 0
    for each in given:
        name, array, taken = _input(signature, each, tail[used:])
        if name in tensors:
            raise MalformedRequest(f"input {name!r} is given twice")
        tensors[name] = array
        used += taken
    if used != len(tail):
        raise MalformedRequest(f"the body has {len(tail)} bytes of tensors, its inputs claim {used}")
    signature.check(tensors)
    outputs, binary = _outputs(asked, signature) if "outputs" in asked or "parameters" in asked else ((), ())
    request_id = asked.get("id", "")
    if not isinstance(request_id, str):
        raise MalformedRequest(f"`id` is a {type(request_id).__name__}, expected a string")
    return Question(Predict(tensors, outputs), request_id, _timeout(asked), binary)


def _input(signature: Signature, given: Any, tail: memoryview) -> tuple[str, Array, int]:
    """(name, array, bytes of `tail` taken)"""
    if not isinstance(given, dict):
        raise MalformedRequest(f"an input is a JSON {type(given).__name__}, expected an object")
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    if not isinstance(name, str):
        raise MalformedRequest("an input has no `name`")
    spec = signature.input(name)
    if datatype != spec.datatype:
        raise WrongDatatype(f"input {name!r} has datatype {datatype!r}, expected {spec.datatype}")
    if not isinstance(shape, list) or len(shape) > RANK_MAX:
        raise _not_a_shape(name, shape)
    count = 1
    for side in shape:
        if type(side) is not int or side < 0:
            raise _not_a_shape(name, shape)
        count *= side
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(tail):
            raise MalformedRequest(f"input {name!r}: binary_data_size is {size}, the body has {len(tail)} bytes left")
        return name, from_bytes(spec, count, tail[:size]).reshape(shape), size
    if "data" not in given:
        raise MalformedRequest(f"input {name!r} has neither `data` nor parameters.binary_data_size")
    array = json_values.to_array(spec, given["data"])
    if array.size != count:
        raise WrongShape(f"input {name!r} has {array.size} values, its shape {shape} wants {count}")
    return name, array.reshape(shape), 0


def _not_a_shape(name: str, shape: Any) -> WrongShape:
    return WrongShape(f"input {name!r} has shape {str(shape)[:100]}, expected a list of sizes")


def from_bytes(spec: TensorSpec, count: int, raw: bytes | memoryview) -> Array:
    """`count` little-endian values, flat; strings are each led by their length in four bytes. Raises `WrongShape`,
    `WrongValue`."""
    if spec.datatype == "BYTES":
        return _split_strings(spec.name, count, raw)
    if len(raw) != count * spec.dtype.itemsize:
        raise WrongShape(
            f"input {spec.name!r} has {len(raw)} bytes, its shape wants {count} values of {spec.datatype}:"
            f" {count * spec.dtype.itemsize} bytes"
        )
    if spec.datatype == "BOOL" and count and np.frombuffer(raw, np.uint8).max() > 1:
        raise WrongValue(f"input {spec.name!r} holds a byte that is neither 0 nor 1, expected BOOL")
    return np.frombuffer(raw, spec.dtype)


def _split_strings(name: str, count: int, raw: bytes | memoryview) -> Array:
    values: list[bytes] = []
    place, end = 0, len(raw)
    while place < end and len(values) < count:
        if end - place < 4:
            break
        (size,) = struct.unpack_from("<I", raw, place)
        if size > end - place - 4:
            break
        values.append(bytes(raw[place + 4 : place + 4 + size]))
        place += 4 + size
    if place != end or len(values) != count:
        raise WrongShape(f"input {name!r} has {len(values)} whole strings in {end} bytes, its shape wants {count}")
    array = np.empty(count, dtype=object)
    array[:] = values
    return array


def to_bytes(array: Array) -> bytes:
    """The counterpart of `from_bytes`."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    return array.tobytes()


def _outputs(asked: dict[str, Any], signature: Signature) -> tuple[tuple[str, ...], Collection[str] | None]:
    parameters = asked.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise MalformedRequest("`parameters` is expected to be an object")
    all_binary = parameters.get("binary_data_output", False)
    wanted = asked.get("outputs") or []
    if not isinstance(wanted, list):
        raise MalformedRequest("`outputs` is expected to be a list")
    if not wanted:
        return (), None if all_binary else ()
    names, binary = [], []
    for each in wanted:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise MalformedRequest("an entry of `outputs` has no `name`")
        own = each.get("parameters") or {}
        if not isinstance(own, dict):
            raise MalformedRequest(f"output {name!r}: `parameters` is expected to be an object")
        if "classification" in own or "shared_memory_region" in own:
            raise MalformedRequest(f"output {name!r}: classification and shared memory are not served")
        names.append(name)
        if own.get("binary_data", all_binary):
            binary.append(name)
    outputs = tuple(names)
    signature.check_outputs(outputs)
    return outputs, binary


def _timeout(asked: dict[str, Any]) -> float | None:
    """Triton's request parameter `timeout`, in microseconds."""
    parameters = asked.get("parameters")
    given = parameters.get("timeout") if isinstance(parameters, dict) else None
    if given is None:
        return None
    if type(given) is not int or given < 0:
        raise MalformedRequest(f"parameters.timeout is {given!r}, expected microseconds")
    return given / 1e6 if given else None


def answer(model: str, version: int, asked: Question, tensors: Tensors) -> tuple[bytes, int]:
    """The body and the length of its JSON part, -1 when all of it is JSON."""
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


def _flat(array: Array) -> Any:
    if array.dtype == object:
        return [value.decode("utf-8", "replace") for value in array.ravel()]
    return array.ravel()


def metadata(name: str, versions: list[int], platform: str, signature: Signature) -> dict[str, Any]:
    """A tensor of any rank is told with the shape [-1], as nearest as V2 can say."""

    def told(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": s.name, "datatype": s.datatype, "shape": [-1] if s.shape is None else list(s.shape)} for s in specs]

    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": platform,
        "inputs": told(signature.inputs),
        "outputs": told(signature.outputs),
    }

