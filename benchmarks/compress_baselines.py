"""What two values a weight come to without a method: the least that `binary` has to be better than.

Every layer that `binary` takes is put back as float32 weights of two values. Judged on the rows that `compress.py`
judges on, by onnxruntime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from peers.subject import Subject

from tidemill.compress import layers
from tidemill.compress.emit import emit
from tidemill.compress.forms import Dense
from tidemill.compress.graph import Graph
from tidemill.core.tensor import Array

BLOCK = 64
"""Of `binary`, as it comes."""
Rounded = Callable[[Array, np.random.Generator], Array]


def signs(weight: Array, _: np.random.Generator) -> Array:
    """Sign times the tensor's mean size, as XNOR-Net has it for a whole tensor (Rastegari et al., 2016, eq. 6)."""
    return np.where(weight < 0, -1.0, 1.0).astype(np.float32) * np.float32(np.abs(weight).mean())


def chance(weight: Array, dice: np.random.Generator) -> Array:
    """The two values of each block that lie best (its mean, and the mean distance from it to both sides), drawn."""
    out = np.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        part = weight[:, start : start + BLOCK]
        middle = part.mean(1, keepdims=True)
        apart = np.abs(part - middle).mean(1, keepdims=True)
        out[:, start : start + BLOCK] = middle + apart * dice.choice((-1.0, 1.0), part.shape)
    return out


BASELINES: Mapping[str, Rounded] = {
    "no method: sign × mean, a tensor": signs,
    "no method: two values a block, drawn": chance,
}


def measured(name: str, model: str, path: Path) -> dict[str, Any]:
    """The metric of the baseline `name` on `model`, with its 95 % interval."""
    dice = np.random.default_rng(0)
    graph = Graph.read(path)
    for layer in layers.find(graph)[0]:
        emit(graph, layer, Dense(BASELINES[name](graph.weight(layer), dice)), None, None)
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        file = Path(folder) / "model.onnx"
        graph.write(file)
        quality = Subject(model, path, 0.0).judge.quality(file)
    return {"mean": quality.mean, "low": quality.low, "high": quality.high}
