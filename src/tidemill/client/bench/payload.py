"""One request's bytes in each dialect, as its stock client would make them. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from tidemill.core.errors import InvalidSetting
from tidemill.core.schemas import message
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import DATATYPES, Array, Signature, Tensors

TENSOR_DOORS = ("v2", "v2-json", "tfs", "v2-grpc", "tfs-grpc")
DOORS = (*TENSOR_DOORS, "openai")
V2_SERVICE = "/inference.GRPCInferenceService/"
TFS_SERVICE = "/tensorflow.serving.PredictionService/"
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Payload:
    """`path` is a URL's path, or the method of gRPC. Every payload of one model and door has the same path."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def speaks_grpc(door: str) -> bool:
    """Raises `InvalidSetting` for a door that is none of `DOORS`."""
    if door not in DOORS:
        raise InvalidSetting(f"there is no door {door!r}; bench speaks {', '.join(DOORS)}")
    return door.endswith("-grpc")


def payload(door: str, model: str, version: str, signature: Signature, tensors: Tensors) -> Payload:
    """`version` is "" for whichever is served. Raises `InvalidSetting`."""
    if speaks_grpc(door):
        make = _v2_grpc if door == "v2-grpc" else _tfs_grpc
        return make(model, version, tensors)
    name = quote(model, safe="")
    if door == "tfs":
        path = f"/v1/models/{name}" + (f"/versions/{quote(version)}" if version else "")
        return Payload(path + ":predict", _tfs_json(signature, tensors), _JSON)
    path = f"/v2/models/{name}" + (f"/versions/{quote(version)}" if version else "") + "/infer"
    return Payload(path, _v2_json(tensors), _JSON) if door == "v2-json" else _v2_binary(path, tensors)


def _v2_binary(path: str, tensors: Tensors) -> Payload:
    specs, parts = [], []
    for name, array in tensors.items():
        raw = _raw(array)
        specs.append(_told(name, array) | {"parameters": {"binary_data_size": len(raw)}})
        parts.append(raw)
    head = orjson.dumps({"inputs": specs, "parameters": {"binary_data_output": True}})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return Payload(path, b"".join((head, *parts)), headers)


def _v2_json(tensors: Tensors) -> bytes:
    return _dumps({"inputs": [_told(name, array) | {"data": _plain(array).ravel()} for name, array in tensors.items()]})


def _tfs_json(signature: Signature, tensors: Tensors) -> bytes:
    """Row form where every input has rows, else the column form."""
    values = {name: _plain(array, as_b64=True) for name, array in tensors.items()}
    if not signature.batched:
        return _dumps({"inputs": values if len(values) > 1 else next(iter(values.values()))})
    if len(values) == 1:
        return _dumps({"instances": next(iter(values.values()))})
    count = min(len(array) for array in values.values())
    return _dumps({"instances": [{name: array[row] for name, array in values.items()} for row in range(count)]})


def _v2_grpc(model: str, version: str, tensors: Tensors) -> Payload:
    request = message("inference.ModelInferRequest")(model_name=model, model_version=version)
    for name, array in tensors.items():
        request.inputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
        request.raw_input_contents.append(_raw(array))
    return Payload(V2_SERVICE + "ModelInfer", request.SerializeToString())


def _tfs_grpc(model: str, version: str, tensors: Tensors) -> Payload:
    request = message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = model
    if version.isdecimal():
        request.model_spec.version.value = int(version)
    elif version:
        request.model_spec.version_label = version
    for name, array in tensors.items():
        tensor = request.inputs[name]
        tensor.dtype = TF_NUMBERS[DATATYPES[array.dtype]]
        for side in array.shape:
            tensor.tensor_shape.dim.add(size=side)
        if array.dtype == object:
            tensor.string_val.extend(array.ravel().tolist())
        else:
            tensor.tensor_content = array.tobytes()
    return Payload(TFS_SERVICE + "Predict", request.SerializeToString())


def _told(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype]}


def _raw(array: Array) -> bytes:
    """Little-endian values; strings are each led by their length in four bytes."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(len(each).to_bytes(4, "little") + each for each in array.ravel())


def _plain(array: Array, as_b64: bool = False) -> Array:
    """What JSON can say: half floats as floats, strings as text where they are text, else as `{"b64": ...}`."""
    if array.dtype.name in ("float16", "bfloat16"):
        return array.astype(np.float32)
    if array.dtype != object:
        return np.ascontiguousarray(array)

    def text(value: bytes) -> Any:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            if as_b64:
                return {"b64": base64.b64encode(value).decode()}
            raise InvalidSetting("an input holds bytes that are no text: V2's JSON has no word for them") from None

    return np.asarray(np.frompyfunc(text, 1, 1)(array), dtype=object)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=lambda each: each.tolist())
