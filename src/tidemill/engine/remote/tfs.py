"""Tensors to and from a server that speaks TensorFlow Serving's REST (its columns); pure."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import numpy as np

from tidemill.core.errors import UpstreamFailed
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.engine.remote.http import Asking, decoded

DATATYPES: Final = {
    "DT_BOOL": "BOOL", "DT_UINT8": "UINT8", "DT_UINT16": "UINT16", "DT_UINT32": "UINT32", "DT_UINT64": "UINT64",
    "DT_INT8": "INT8", "DT_INT16": "INT16", "DT_INT32": "INT32", "DT_INT64": "INT64", "DT_HALF": "FP16",
    "DT_BFLOAT16": "BF16", "DT_FLOAT": "FP32", "DT_DOUBLE": "FP64", "DT_STRING": "BYTES",
}  # fmt: skip
B64: Final = "b64"


def health_path(model: str) -> str:
    return f"/v1/models/{model}"


def metadata_path(model: str) -> str:
    return f"/v1/models/{model}/metadata"


def signature(body: bytes) -> Signature:
    """Of `GET /v1/models/M/metadata`: `serving_default`, else the only one. Raises `UpstreamFailed`."""
    try:
        known = decoded(body)["metadata"]["signature_def"]["signature_def"]
        name = "serving_default" if "serving_default" in known else next(iter(known))
        inputs, outputs = (_specs(known[name][side]) for side in ("inputs", "outputs"))
        method = str(known[name].get("method_name") or "tensorflow/serving/predict")
    except (KeyError, TypeError, ValueError, StopIteration, AttributeError) as error:
        raise UpstreamFailed(f"the upstream's metadata is not TensorFlow Serving's: {error!r:.200}") from error
    return Signature(inputs, outputs, name, method)


def asking(model: str, inputs: Tensors, signature: Signature) -> Asking:
    columns = {name: _nested(array) for name, array in inputs.items()}
    body = json.dumps({"signature_name": signature.name, "inputs": columns}).encode()
    return Asking("POST", f"/v1/models/{model}:predict", body, {"content-type": "application/json"})


def answer(body: bytes, signature: Signature, outputs: tuple[str, ...]) -> Tensors:
    """TensorFlow Serving gives all outputs; those that were not asked for are dropped. Raises `UpstreamFailed`."""
    try:
        told = decoded(body)["outputs"]
        if len(signature.outputs) == 1 and not isinstance(told, dict):
            told = {signature.outputs[0].name: told}
        wanted = [spec for spec in signature.outputs if not outputs or spec.name in outputs]
        return {spec.name: _array(told[spec.name], spec) for spec in wanted}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UpstreamFailed(f"the upstream's answer is not TensorFlow Serving's: {error!r:.200}") from error


def _specs(told: dict[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, DATATYPES[each["dtype"]], _shape(each["tensor_shape"])) for name, each in told.items()
    )


def _shape(told: dict[str, Any]) -> tuple[int, ...] | None:
    if told.get("unknown_rank"):
        return None
    return tuple(max(int(side["size"]), -1) for side in told.get("dim", ()))


def _nested(array: Array) -> Any:
    if array.dtype != object:
        return (array.astype(np.float32) if array.dtype.kind == "V" or array.dtype == np.float16 else array).tolist()
    if array.ndim == 0:
        return {B64: base64.b64encode(array.item()).decode()}
    return [_nested(np.asarray(each, object)) for each in array]


def _array(told: Any, spec: TensorSpec) -> Array:
    if spec.datatype != "BYTES":
        array = np.array(told, spec.dtype)
    else:
        shape, values = _bytes(told)
        array = np.empty(len(values), object)
        array[:] = values
        array = array.reshape(shape)
    if not spec.admits(array.shape):
        raise ValueError(f"{spec.name!r} has shape {list(array.shape)}")
    return array


def _bytes(told: Any) -> tuple[tuple[int, ...], list[bytes]]:
    """The shape and the strings of nested lists of them."""
    if isinstance(told, dict):
        return (), [base64.b64decode(told[B64], validate=True)]
    if isinstance(told, str):
        return (), [told.encode()]
    parts = [_bytes(each) for each in told]
    shapes = {shape for shape, _ in parts}
    if len(shapes) > 1:
        raise ValueError("lists of strings have different lengths")
    return (len(parts), *(shapes.pop() if shapes else ())), [value for _, values in parts for value in values]
