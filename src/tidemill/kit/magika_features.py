"""What magika (model standard_v3_3) looks at in a file, and what its answer means; pure, any process.

The facts are those of the model's `config.min.json`: 1024 bytes of each end, taken from blocks of 4096 bytes after
white space at the outer edge is stripped, filled up with the token 256.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from tidemill.core.errors import WrongValue
from tidemill.core.tensor import Array

BLOCK_BYTES: Final = 4096
EDGE_TOKENS: Final = 1024
PADDING: Final = 256
CONTENT_BYTES_MIN: Final = 8
"""With less content than this the model's answer means nothing."""


def features(content: bytes) -> Array:
    """The model's input `bytes` for one file: int32 [2048]; stack several on a new dimension 0.

    Raises `WrongValue` for a file of fewer than eight bytes after stripping.
    """
    return _features(content[:BLOCK_BYTES], content[-BLOCK_BYTES:])


def file_features(path: Path) -> Array:
    """`features` of a file of any size, of which only the two ends are read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(BLOCK_BYTES)
        file.seek(max(0, size - BLOCK_BYTES))
        return _features(head, file.read(BLOCK_BYTES))


def _features(head: bytes, tail: bytes) -> Array:
    begin = head.lstrip()[:EDGE_TOKENS]
    end = tail.rstrip()[-EDGE_TOKENS:]
    if len(begin) < CONTENT_BYTES_MIN:
        raise WrongValue(f"{len(begin)} bytes of content are too few to tell a type; give at least {CONTENT_BYTES_MIN}")
    tokens = np.full(2 * EDGE_TOKENS, PADDING, dtype=np.int32)
    tokens[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
    tokens[2 * EDGE_TOKENS - len(end) :] = np.frombuffer(end, dtype=np.uint8)
    return tokens


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
