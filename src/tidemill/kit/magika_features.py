"""What magika (model standard_v3_3) looks at in a file, and what its answer means; pure, any process.

The features themselves are the step `file-ends`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tidemill.core.tensor import Array
from tidemill.steps.file_ends import BLOCK_BYTES, PADDING, ends

__all__ = ["PADDING", "answer", "features", "file_features", "labels", "labels_text"]


def features(content: bytes) -> Array:
    """The model's input `bytes` for one file: int32 [2048]; stack several on a new dimension 0.

    Raises `WrongValue` for a file of fewer than eight bytes after stripping.
    """
    return ends(content[:BLOCK_BYTES], content[-BLOCK_BYTES:])


def file_features(path: Path) -> Array:
    """`features` of a file of any size, of which only the two ends are read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(BLOCK_BYTES)
        file.seek(max(0, size - BLOCK_BYTES))
        return ends(head, file.read(BLOCK_BYTES))


def labels_text(config: bytes) -> bytes:
    """`labels.txt`: the names in `config.min.json`, one a line in the order of the model's output."""
    return "".join(f"{label}\n" for label in json.loads(config)["target_labels_space"]).encode()


def labels(version_folder: Path) -> tuple[str, ...]:
    """The names of an installed magika, from the folder that holds its `model.onnx`."""
    return tuple((version_folder / "labels.txt").read_text("utf-8").split())


def answer(scores: Array, names: tuple[str, ...]) -> tuple[str, float]:
    """The type that one row of the output `target_label` points at, and its probability."""
    best = int(np.argmax(scores))
    return names[best], float(scores[best])
