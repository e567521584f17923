"""Calls to paste: KServe V2 infer with zeros of the right datatype and shape, and `:predict` with what was tried. Pure;
runs in the console's process."""

from __future__ import annotations

import json
import shlex
from math import prod
from typing import Any
from urllib.parse import quote

from tidemill.console.samples import sides, zero
from tidemill.console.snapshot import Model
from tidemill.core.tensor import TensorSpec

TEXT_BYTES_MAX = 2000
VALUES_MAX = 64
"""Above this many values the shell writes the body, so that the call stays short enough to read."""


def call(model: Model, http_url: str, auth: bool) -> str:
    """The shell line. A free dimension is 1; where keys are asked, the key comes from $TIDEMILL_KEY."""
    url = f"{http_url.rstrip('/')}/v2/models/{quote(model.name, safe='')}/versions/{model.version}/infer"
    words = ["curl", "-sS", shlex.quote(url), "-H", shlex.quote("Content-Type: application/json")]
    if auth:
        words += ["-H", '"Authorization: Bearer $TIDEMILL_KEY"']
    if sum(_values(spec) for spec in model.inputs) <= VALUES_MAX:
        body = {"inputs": [_header(spec) | {"data": [zero(spec)] * _values(spec)} for spec in model.inputs]}
        return " ".join([*words, "-d", shlex.quote(json.dumps(body))])
    inputs = ", ".join(f'{json.dumps(_header(spec))[:-1]}, "data": {_source(spec)}}}' for spec in model.inputs)
    program = f'import json; print(json.dumps({{"inputs": [{inputs}]}}))'
    return " ".join(["python3", "-c", shlex.quote(program), "|", *words, "-d", "@-"])


def predict(name: str, version: int | None, http_url: str, auth: bool, media: str, data: bytes, file: str = "") -> str:
    """The shell line that asks what the playground asked. `file` names what was opened; a short text is in the line."""
    at = "" if version is None else f"/versions/{version}"
    url = f"{http_url.rstrip('/')}/v1/models/{quote(name, safe='')}{at}:predict"
    words = ["curl", "-sS", shlex.quote(url), "-H", shlex.quote(f"Content-Type: {media}")]
    if auth:
        words += ["-H", '"Authorization: Bearer $TIDEMILL_KEY"']
    text = _written(data) if not file else None
    if text is None:
        return " ".join([*words, "--data-binary", shlex.quote(f"@{file or 'FILE'}")])
    return " ".join([*words, "--data-raw", shlex.quote(text)])


def chat(http_url: str, auth: bool, body: dict[str, Any]) -> str:
    """The shell line that asks `/v1/chat/completions` for what the playground asked."""
    url = f"{http_url.rstrip('/')}/v1/chat/completions"
    words = ["curl", "-sSN", shlex.quote(url), "-H", shlex.quote("Content-Type: application/json")]
    if auth:
        words += ["-H", '"Authorization: Bearer $TIDEMILL_KEY"']
    return " ".join([*words, "--data-raw", shlex.quote(json.dumps(body, ensure_ascii=False))])


def _written(data: bytes) -> str | None:
    """`data` as a text that fits a line of the shell, None where it does not."""
    if len(data) > TEXT_BYTES_MAX or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _values(spec: TensorSpec) -> int:
    return prod(sides(spec))


def _header(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": sides(spec)}


def _source(spec: TensorSpec) -> str:
    """The values as Python source; JSON writes a zero as Python does, save for a false."""
    nothing = zero(spec)
    return f"[{'False' if nothing is False else json.dumps(nothing)}] * {_values(spec)}"
