"""Which engine a compressed model is to be served with, and how its `tidemill.toml` says so; pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

import numpy as np

from tidemill.compress.report.facts import Speed
from tidemill.core.errors import RefusedModel

CHOICES = ("auto", "onnx", "openvino")
ENGINE_OF_RUNTIME = {"onnxruntime": "onnx", "openvino": "openvino"}
ENGINE_LINE = re.compile(r"\s*(engine|\"engine\"|'engine')\s*=")


def chosen(asked: str, speeds: Sequence[Speed], agree: bool) -> str:
    """The engine to be noted; "" for none. `asked` is one of `CHOICES`, or "".

    auto takes the one that is quicker by the geometric mean over all shapes, and onnx where nothing was measured or the
    two do not `agree` on the result: its quality was judged in onnxruntime.
    """
    if asked != "auto":
        return asked
    if not agree:
        return "onnx"
    logs: dict[str, list[float]] = {}
    for each in speeds:
        logs.setdefault(each.engine, []).append(float(np.log(max(each.ratio.mean * each.base, 1e-12))))
    shapes = max((len(found) for found in logs.values()), default=0)
    means = {name: float(np.mean(found)) for name, found in logs.items() if len(found) == shapes}
    return ENGINE_OF_RUNTIME[min(means, key=lambda name: means[name])] if means else "onnx"


def noted(text: str, engine: str) -> str:
    """The TOML `text` with `engine` in it, whatever it said before. Raises `RefusedModel` where that cannot be done by
    lines: the key is written in a way of its own."""
    lines = text.splitlines(keepends=True)
    tables = next((at for at, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    head = [line for line in lines[:tables] if not ENGINE_LINE.match(line)]
    whole = "".join((f'engine = "{engine}"\n', *head, *lines[tables:]))
    try:
        same = tomllib.loads(whole) == {**tomllib.loads(text), "engine": engine}
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise RefusedModel(
            "the engine cannot be put into the model's tidemill.toml: its keys are written over several lines; write"
            " `engine` on a line of its own there, or leave out --engine"
        )
    return whole
