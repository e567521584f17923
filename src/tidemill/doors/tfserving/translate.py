"""TensorFlow Serving's REST dialect, both ways, pure: row form (`instances`) and column form (`inputs`)."""

from __future__ import annotations

import base64
import binascii
import time
from typing import Any

from tidemill.core.errors import (
    EngineFailed,
    MalformedRequest,
    MissingInput,
    UnknownSignature,
    WrongShape,
    WrongValue,
)
from tidemill.core.request import Predict
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.core.text import short
from tidemill.doors import json_values

DEFAULT_SIGNATURE = "serving_default"
TF_NAMES = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip
assert TF_NAMES.keys() == TF_NUMBERS.keys()  # noqa: S101 - two tables of one thing


class Question:
    """A parsed predict request. `rows` tells the row form, whose answer is `predictions`."""

    __slots__ = ("rows", "timeout_s", "work")

    def __init__(self, work: Predict, rows: bool) -> None:
        self.work = work
        self.rows = rows
        self.timeout_s: float | None = None


def question(signature: Signature, body: bytes) -> Question:
    """Raises the errors of the branch `CallerError` that tell what is wrong with the request."""
    asked = json_values.parse(body)
    if not isinstance(asked, dict):
        raise MalformedRequest(f"the body is a JSON {type(asked).__name__}, expected an object")
    named = asked.get("signature_name", "")
    if named not in ("", DEFAULT_SIGNATURE):
        raise UnknownSignature(f"there is no signature {short(named)}; this model has {DEFAULT_SIGNATURE!r}")
    if ("instances" in asked) == ("inputs" in asked):
        raise MalformedRequest("expected either `instances` (row form) or `inputs` (column form)")
    rows = "instances" in asked
    values = _by_row(signature, asked["instances"]) if rows else _by_column(signature, asked["inputs"])
    if b"b64" in body:
        values = {name: _decoded(name, value) for name, value in values.items()}
    # The words of the plain row and column forms are all the quotes there are, where only numbers are given.
    mixed = body.count(b'"') > (6 if named else 2) or b"true" in body or b"false" in body
    tensors = {name: json_values.to_array(signature.input(name), value, mixed) for name, value in values.items()}
    signature.check(tensors)
    return Question(Predict(tensors), rows)


def _by_row(signature: Signature, instances: Any) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances:
        raise MalformedRequest("`instances` is expected to be a list with at least one instance")
    if not _is_named(instances[0]):
        return {_only(signature).name: instances}
    names = list(instances[0])
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for place, instance in enumerate(instances):
        if not _is_named(instance) or instance.keys() != columns.keys():
            raise WrongShape(f"instance {place} has not the same inputs as instance 0: {', '.join(names)}")
        for name in names:
            columns[name].append(instance[name])
    return dict(columns)


def _by_column(signature: Signature, inputs: Any) -> dict[str, Any]:
    if _is_named(inputs):
        return dict(inputs)
    return {_only(signature).name: inputs}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_b64(value)


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and "b64" in value


def _only(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(map(str, signature.inputs))
        raise MissingInput(f"this model takes several inputs; name them: {names}")
    return signature.inputs[0]


def _decoded(name: str, value: Any, depth: int = 0) -> Any:
    if isinstance(value, list):
        if depth > json_values.RANK_MAX:
            raise WrongShape(f"input {name!r} is nested deeper than {json_values.RANK_MAX}")
        return [_decoded(name, each, depth + 1) for each in value]
    if _is_b64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise WrongValue(f"input {name!r} holds b64 that cannot be decoded: {error}") from error
    return value


def answer(asked: Question, tensors: Tensors) -> bytes:
    """Raises `EngineFailed` when the row form is asked of outputs that have no rows."""
    shown = {name: _shown(name, array) for name, array in tensors.items()}
    if not asked.rows:
        return json_values.render({"outputs": shown if len(shown) > 1 else next(iter(shown.values()))})
    counts = {array.shape[0] if array.ndim else -1 for array in tensors.values()}
    if len(counts) != 1 or -1 in counts:
        raise EngineFailed("the outputs have not one row for each instance; ask in the column form (`inputs`)")
    if len(shown) == 1:
        return json_values.render({"predictions": next(iter(shown.values()))})
    count = counts.pop()
    return json_values.render({"predictions": [{name: shown[name][row] for name in shown} for row in range(count)]})


def _shown(name: str, array: Array) -> Any:
    """Strings are text, or `{"b64": ...}` under a name that ends in `_bytes`."""
    if array.dtype != object:
        return array
    as_bytes = name.endswith("_bytes")

    def told(value: Any) -> Any:
        if isinstance(value, list):
            return [told(each) for each in value]
        return {"b64": base64.b64encode(value).decode()} if as_bytes else value.decode("utf-8", "replace")

    return told(array.tolist())


def status(name: str, versions: list[tuple[int, str, str]], created_s: int) -> dict[str, Any]:
    """(version, state, reason) of each; one object for TensorFlow Serving's and OpenAI's `GET /v1/models/M`."""
    return {
        "model_version_status": [
            {
                "version": str(version),
                "state": "END" if state == "FAILED" else state,
                "status": {
                    "error_code": "UNKNOWN" if state == "FAILED" else "OK",
                    "error_message": reason,
                },
            }
            for version, state, reason in reversed(versions)
        ],
        "id": name,
        "object": "model",
        "created": created_s or int(time.time()),
        "owned_by": "tidemill",
    }


def metadata(name: str, version: int, signature: Signature) -> dict[str, Any]:
    def info(spec: TensorSpec) -> dict[str, Any]:
        dims = [{"size": str(side), "name": ""} for side in spec.shape or ()]
        return {
            "dtype": TF_NAMES[spec.datatype],
            "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
            "name": spec.name,
        }

    signatures = {
        DEFAULT_SIGNATURE: {
            "inputs": {spec.name: info(spec) for spec in signature.inputs},
            "outputs": {spec.name: info(spec) for spec in signature.outputs},
            "method_name": "tensorflow/serving/predict",
        }
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }
