"""The weights of a GGUF as its own format has them, for a graph that was read from it; in the command line's process.

OpenVINO's weights of four bits have whole zeros, those of Q4_1 and of the K-quants have minima between them: a graph
that openvino-genai reads of such a file differs from the file by as much as the file from its source. Its products are
found again in the file by their shapes and by what they hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from tidemill.core.tensor import Array

NEAR: Final = 0.4
"""Of a matrix's norm: what rounding moves is a tenth, another matrix is farther than the whole."""
LOOK_ROWS: Final = 256


class Weights:
    """`heads` are those whose rows the format keeps with the halves of each interleaved: of the queries and of the
    keys, as llama.cpp's converter writes models of the type Llama."""

    def __init__(self, path: Path, heads: tuple[int, int]) -> None:
        from gguf import GGUFReader

        self._left: list[Any] = [each for each in GGUFReader(path).tensors if len(each.shape) == 2]
        self._heads = dict(zip(("attn_q.", "attn_k."), heads, strict=True))

    def take(self, rows: Array) -> Array | None:
        """The matrix of the file that `rows` `[outputs, inputs]` was read of, in float32; None where there is none.
        Each is given once."""
        shape = tuple(reversed(rows.shape))
        for at, tensor in enumerate(self._left):
            if tuple(tensor.shape) != shape:
                continue
            for heads in {0, self._interleaved(tensor.name)}:
                width = rows.shape[0] // heads if heads else min(LOOK_ROWS, rows.shape[0])
                if _near(_read(tensor, heads and 1, width), rows[:width]):
                    del self._left[at]
                    return _read(tensor, heads, rows.shape[0])
        return None

    def _interleaved(self, name: str) -> int:
        return next((count for part, count in self._heads.items() if part in name), 0)


def _read(tensor: Any, heads: int, count: int) -> Array:
    """The first `count` rows, those of each of `heads` put as a graph has them."""
    from gguf import quants

    rows = np.asarray(quants.dequantize(tensor.data[:count], tensor.tensor_type), np.float32)
    if not heads:
        return rows
    return rows.reshape(heads, count // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _near(found: Array, wanted: Array) -> bool:
    return bool(np.linalg.norm(found - wanted) <= NEAR * np.linalg.norm(found))
