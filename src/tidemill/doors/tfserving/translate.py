"""TensorFlow Serving's REST dialect, both ways, pure: row form (`instances`) and column form (`inputs`)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from tidemill.core.contracts import Served
from tidemill.core.errors import (
    MalformedRequest,
    MissingInput,
    WrongShape,
    WrongValue,
)
from tidemill.core.request import Predict
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.core.text import short
from tidemill.doors import json_values, quick_json
from tidemill.doors.numbers import narrowed, plain
from tidemill.doors.tfserving.spec import STATES, all_of, chosen, health, word_for

TF_NAMES = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip
FORMS = ("instances", "inputs")
QUICK_BYTES = 65536
WHOLE_MAX = {"FP32": 2.0**24, "FP64": 2.0**53}
"""All whole numbers up to here are themselves in the float type."""
assert TF_NAMES.keys() == TF_NUMBERS.keys()  # noqa: S101 - two tables of one thing


class Question:
    """A parsed predict request. `rows` tells the row form, whose answer is `predictions`."""

    __slots__ = ("rows", "timeout_s", "work")

    def __init__(self, work: Predict, rows: bool) -> None:
        self.work = work
        self.rows = rows
        self.timeout_s: float | None = None


def question(own: Signature, body: bytes) -> Question:
    """`own` is the model's, and knows its others.

    Raises the errors of the branch `CallerError` that tell what is wrong with the request.
    """
    if (tensors := _plain_rows(own, body)) is not None:
        own.check(tensors)
        return Question(Predict(tensors), rows=True)
    asked = _one_array(own, body)
    if asked is None:
        asked = json_values.parse(body)
    if not isinstance(asked, dict):
        raise MalformedRequest(f"the body is a JSON {type(asked).__name__}, expected an object")
    named = asked.get("signature_name", "")
    signature = own if named == "" else chosen(own, named)
    word = word_for(signature, own)
    if ("instances" in asked) == ("inputs" in asked):
        raise MalformedRequest("expected either `instances` (row form) or `inputs` (column form)")
    rows = "instances" in asked
    form = asked["instances" if rows else "inputs"]
    if isinstance(form, np.ndarray):
        tensors = {signature.inputs[0].name: narrowed(signature.inputs[0], form)}
        signature.check(tensors)
        return Question(Predict(tensors, signature=word), rows)
    values = _by_row(signature, asked["instances"]) if rows else _by_column(signature, asked["inputs"])
    if b"b64" in body:
        values = {name: _decoded(name, value) for name, value in values.items()}
    # The words of the plain row and column forms are all the quotes there are, where only numbers are given.
    mixed = body.count(b'"') > (6 if named else 2) or b"true" in body or b"false" in body
    tensors = {name: json_values.to_array(signature.input(name), value, mixed, True) for name, value in values.items()}
    signature.check(tensors)
    return Question(Predict(tensors, signature=word), rows)


class _Rows(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    instances: list[list[float]]


_ROWS = msgspec.json.Decoder(_Rows)


def _plain_rows(signature: Signature, body: bytes) -> Tensors | None:
    """The one input of a small body that holds rows of numbers and nothing else; None where another reader may see
    more in it."""
    if len(body) >= QUICK_BYTES or not _takes_floats(signature):
        return None
    try:
        rows = _ROWS.decode(body).instances
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not rows:
        return None
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        return None
    flat = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    array = plain(signature.inputs[0], json_values.doubles(flat))
    return None if array is None else {signature.inputs[0].name: array.reshape(len(rows), width)}


def _one_array(own: Signature, body: bytes) -> Any:
    """A large body with the one input as an array already; None where the other reader may see more in it: a whole
    number that a float rounds is refused in its own digits."""
    if len(body) < QUICK_BYTES or not _takes_floats(own):
        return None
    asked = quick_json.with_nested(body, FORMS)
    if asked is None:
        return None
    signature = chosen(own, asked.get("signature_name", ""))
    if not _takes_floats(signature):
        return None
    (array,) = (asked[name] for name in FORMS if name in asked)
    return asked if np.abs(array).max() <= WHOLE_MAX[signature.inputs[0].datatype] else None


def _takes_floats(signature: Signature) -> bool:
    """Alone, in one input."""
    return len(signature.inputs) == 1 and signature.inputs[0].datatype in WHOLE_MAX


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
        wanted = {spec.name: inputs[spec.name] for spec in signature.inputs if spec.name in inputs}
        # What no input asks for is left alone, as TensorFlow Serving does, where nothing is missing.
        return wanted if len(wanted) == len(signature.inputs) else dict(inputs)
    return {_only(signature).name: inputs}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_b64(value)


def is_b64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and "b64" in value


def _only(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(map(str, signature.inputs))
        raise MissingInput(f"this model takes several inputs; name them: {names}")
    return signature.inputs[0]


def _decoded(name: str, value: Any, depth: int = 0) -> Any:
    if isinstance(value, list):
        if depth > json_values.RANK_MAX:
            raise WrongShape(f"input {short(name)} is nested deeper than {json_values.RANK_MAX}")
        return [_decoded(name, each, depth + 1) for each in value]
    if is_b64(value):
        return from_b64(name, value["b64"])
    return value


def from_b64(name: str, text: Any) -> bytes:
    """White space within and padding left out are borne, as TensorFlow Serving does. Raises `WrongValue`."""
    try:
        packed = "".join(text.split()).rstrip("=")
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, AttributeError, ValueError) as error:
        odd = re.search(r"[^A-Za-z0-9+/=\s]", text) if isinstance(text, str) else None
        where = f"character {odd.start() + 1} is {odd[0]!r}" if odd else str(error)
        raise WrongValue(f"input {short(name)} holds b64 that cannot be decoded: {where}") from error


def answer(asked: Question, tensors: Tensors) -> bytes:
    """Raises `MalformedRequest` when the row form is asked of outputs that have not one row for each other's."""
    shown = {name: _shown(name, array) for name, array in tensors.items()}
    if not asked.rows:
        return json_values.render({"outputs": shown if len(shown) > 1 else next(iter(shown.values()))})
    counts = {array.shape[0] if array.ndim else -1 for array in tensors.values()}
    if len(counts) != 1 or -1 in counts:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in tensors.items())
        raise MalformedRequest(f"the outputs are no rows ({shapes}); ask in the column form (`inputs`)")
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


def status(name: str, versions: Sequence[Served], created_s: int, root: str = "") -> dict[str, Any]:
    """One object for TensorFlow Serving's and OpenAI's `GET /v1/models/M`; the newest version comes first."""
    return {
        "model_version_status": [
            {
                "version": str(served.version),
                "state": STATES.get(served.state, str(served.state)),
                "status": {"error_code": health(served.state), "error_message": served.reason},
            }
            for served in reversed(versions)
        ],
        **model(name, created_s, root),
    }


def model(name: str, created_s: int, root: str = "") -> dict[str, Any]:
    """A model in OpenAI's words; `created_s` is when this service began to serve it, `root` what an alias stands for,
    in vLLM's word."""
    more = {"root": root} if root else {}
    return {"id": name, "object": "model", "created": created_s, "owned_by": "tidemill", **more}


def metadata(name: str, version: int, signature: Signature) -> dict[str, Any]:
    """Of all signatures that are served."""

    def info(spec: TensorSpec) -> dict[str, Any]:
        dims = [{"size": str(side), "name": ""} for side in spec.shape or ()]
        return {
            "dtype": TF_NAMES[spec.datatype],
            "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
            "name": spec.name,
        }

    signatures = {
        each.name: {
            "inputs": {spec.name: info(spec) for spec in each.inputs},
            "outputs": {spec.name: info(spec) for spec in each.outputs},
            "method_name": each.method,
        }
        for each in all_of(signature)
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }
