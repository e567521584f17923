"""A call to paste: KServe V2 infer with zeros of the right datatype and shape. Pure; runs in the console's process."""

from __future__ import annotations

import json
import shlex
from math import prod
from typing import Any
from urllib.parse import quote

from tidemill.console.snapshot import Model
from tidemill.core.tensor import TensorSpec

VALUES_MAX = 64
"""Above this many values the shell writes the body, so that the call stays short enough to read."""


def call(model: Model, http_url: str, auth: bool) -> str:
    """The shell line. A free dimension is 1; where keys are asked, the key comes from $TIDEMILL_KEY."""
    url = f"{http_url.rstrip('/')}/v2/models/{quote(model.name, safe='')}/versions/{model.version}/infer"
    words = ["curl", "-sS", shlex.quote(url), "-H", shlex.quote("Content-Type: application/json")]
    if auth:
        words += ["-H", '"Authorization: Bearer $TIDEMILL_KEY"']
    if sum(_values(spec) for spec in model.inputs) <= VALUES_MAX:
        body = {"inputs": [_header(spec) | {"data": [_zero(spec)] * _values(spec)} for spec in model.inputs]}
        return " ".join([*words, "-d", shlex.quote(json.dumps(body))])
    inputs = ", ".join(f'{json.dumps(_header(spec))[:-1]}, "data": {_source(spec)}}}' for spec in model.inputs)
    program = f'import json; print(json.dumps({{"inputs": [{inputs}]}}))'
    return " ".join(["python3", "-c", shlex.quote(program), "|", *words, "-d", "@-"])


def _shape(spec: TensorSpec) -> list[int]:
    return [1] if spec.shape is None else [1 if size == -1 else size for size in spec.shape]


def _values(spec: TensorSpec) -> int:
    return prod(_shape(spec))


def _header(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": _shape(spec)}


def _zero(spec: TensorSpec) -> Any:
    if spec.datatype == "BYTES":
        return ""
    if spec.datatype == "BOOL":
        return False
    return 0.0 if spec.datatype.startswith(("FP", "BF")) else 0


def _source(spec: TensorSpec) -> str:
    """The values as Python source; JSON writes a zero as Python does, save for a false."""
    zero = _zero(spec)
    return f"[{'False' if zero is False else json.dumps(zero)}] * {_values(spec)}"
