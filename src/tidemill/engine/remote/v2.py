"""Tensors to and from a server that speaks KServe's V2 over HTTP, with its extension for binary data; pure."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from tidemill.core.errors import UpstreamFailed
from tidemill.core.tensor import DATATYPES, DTYPES, Array, Signature, Tensors, TensorSpec
from tidemill.engine.remote.http import Asking, decoded

HEADER = "inference-header-content-length"
HEALTH = "/v2/health/ready"


def metadata_path(model: str) -> str:
    return f"/v2/models/{model}"


def signature(body: bytes) -> Signature:
    """Of `GET /v2/models/M`. Raises `UpstreamFailed`."""
    told = decoded(body)
    try:
        inputs, outputs = (tuple(_spec(each) for each in told[side]) for side in ("inputs", "outputs"))
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamFailed(f"the upstream's metadata is no V2: {type(error).__name__} {error}") from error
    return Signature(inputs, outputs)


def asking(model: str, inputs: Tensors, outputs: Sequence[str], binary: bool) -> Asking:
    heads, parts = [], []
    for name, array in inputs.items():
        head: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype]}
        if binary:
            data = _packed(array)
            head["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            head["data"] = _listed(array)
        heads.append(head)
    asked: dict[str, Any] = {"inputs": heads}
    if outputs:
        asked["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    if binary:
        asked["parameters"] = {"binary_data_output": True}
    head_bytes = orjson.dumps(asked, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary and b"null" in head_bytes:  # what JSON has no word for goes by those that Python's servers read
        head_bytes = json.dumps(asked, default=np.ndarray.tolist).encode()
    headers = {"content-type": "application/octet-stream" if binary else "application/json"}
    if binary:
        headers[HEADER] = str(len(head_bytes))
    return Asking("POST", f"/v2/models/{model}/infer", b"".join([head_bytes, *parts]), headers)


def answer(body: bytes, header: str | None) -> Tensors:
    """Of a reply whose header `HEADER` is `header`. Raises `UpstreamFailed`."""
    try:
        length = len(body) if header is None else int(header)
        told = decoded(body[:length])
        place, found = length, {}
        for each in told["outputs"]:
            spec, shape = DTYPES[each["datatype"]], [int(side) for side in each["shape"]]
            size = (each.get("parameters") or {}).get("binary_data_size")
            if size is None:
                found[str(each["name"])] = _from_list(each["data"], spec, shape)
                continue
            if not 0 <= size <= len(body) - place:
                raise ValueError(f"{size} bytes are announced, {len(body) - place} are there")
            found[str(each["name"])] = _unpacked(body[place : place + size], spec, shape)
            place += size
    except (KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise UpstreamFailed(f"the upstream's answer is no V2: {type(error).__name__} {str(error)[:200]}") from error
    return found


def _spec(told: dict[str, Any]) -> TensorSpec:
    if told["datatype"] not in DTYPES:
        raise ValueError(told["datatype"])
    return TensorSpec(str(told["name"]), told["datatype"], tuple(max(int(side), -1) for side in told["shape"]))


def _packed(array: Array) -> bytes:
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())


def _unpacked(data: bytes, dtype: np.dtype[Any], shape: list[int]) -> Array:
    if dtype.kind != "O":
        return np.frombuffer(data, dtype).reshape(shape).copy()
    values, place = [], 0
    while place < len(data):
        (length,) = struct.unpack_from("<I", data, place)
        place += 4 + length
        values.append(data[place - length : place])
    if place != len(data):
        raise ValueError("a string is cut off")
    return _objects(values, shape)


def _listed(array: Array) -> Any:
    if array.dtype == object:
        return [value.decode("utf-8", "surrogateescape") for value in array.ravel()]
    kept = array.dtype.kind in "iub" or array.dtype in (np.float32, np.float64)
    return np.ascontiguousarray(array.ravel() if kept else array.ravel().astype(np.float32))


def _from_list(data: Any, dtype: np.dtype[Any], shape: list[int]) -> Array:
    if dtype.kind == "O":
        return _objects([each.encode() if isinstance(each, str) else bytes(each) for each in _flat(data)], shape)
    return np.array(_flat(data), dtype).reshape(shape)


def _flat(data: Any) -> list[Any]:
    """V2 lets a tensor's values be nested too."""
    found = data
    while found and isinstance(found[0], list):
        found = [value for each in found for value in each]
    return list(found)


def _objects(values: list[bytes], shape: list[int]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)
