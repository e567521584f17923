"""V2's binary bodies: their JSON heads, each understood once; pure, on the owner's loop.

A client that asks one model again and again sends the same head before other numbers, and gets the same head before
other numbers. Heads of strings and bools are read each time, for there the numbers are looked at too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np

from tidemill.core.tensor import DATATYPES, Array, Signature, Tensors
from tidemill.doors import json_values

HEADS_MAX: Final = 256
HEAD_BYTES_MAX: Final = 1024
FIXED: Final = frozenset("fiuV")
"""Kinds of dtypes of which all bytes are values."""


@dataclass(slots=True, eq=False)
class Layout:
    """What a head says to `signature`. `inputs` are (name, dtype, how many, shape), one behind another, `size` bytes
    together. `binary` and `wanted` are as in `translate.Question`."""

    signature: Signature
    inputs: tuple[tuple[str, np.dtype[Any], int, tuple[int, ...]], ...]
    size: int
    outputs: tuple[str, ...]
    timeout_s: float | None
    binary: Collection[str] | None
    wanted: Mapping[str, int] | None

    def tensors(self, body: bytes, at: int) -> dict[str, Array]:
        """Those that stand in `body` from `at` on."""
        found = {}
        for name, dtype, count, shape in self.inputs:
            found[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
        return found


_KNOWN: dict[bytes, Layout] = {}


def find(signature: Signature, body: bytes, json_length: int) -> Layout | None:
    """What the first `json_length` bytes of `body` say, where they are known and as many bytes follow as they claim."""
    layout = _KNOWN.get(body[:json_length])
    if layout is not None and layout.signature is signature and layout.size == len(body) - json_length:
        return layout
    return None


def learn(
    signature: Signature,
    head: bytes,
    tensors: Tensors,
    outputs: tuple[str, ...],
    timeout_s: float | None,
    binary: Collection[str] | None,
    wanted: Mapping[str, int] | None,
) -> None:
    """`head`, which has no id of its own, says so; all of its `tensors` follow it, in their order."""
    if len(head) > HEAD_BYTES_MAX or any(array.dtype.kind not in FIXED for array in tensors.values()):
        return
    if len(_KNOWN) >= HEADS_MAX:
        _KNOWN.clear()
    inputs = tuple((name, array.dtype, array.size, array.shape) for name, array in tensors.items())
    size = sum(array.nbytes for array in tensors.values())
    _KNOWN[head] = Layout(signature, inputs, size, outputs, timeout_s, binary, wanted)


def answer(model: str, version: int, tensors: Tensors) -> bytes:
    """The head of an answer of which all `tensors`, none of them strings, follow as bytes."""
    return _answer(model, version, tuple([(name, array.dtype, array.shape) for name, array in tensors.items()]))


@lru_cache(maxsize=HEADS_MAX)
def _answer(model: str, version: int, outputs: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> bytes:
    told = [
        {
            "name": name,
            "datatype": DATATYPES[dtype],
            "shape": shape,
            "parameters": {"binary_data_size": prod(shape) * dtype.itemsize},
        }
        for name, dtype, shape in outputs
    ]
    return json_values.render({"model_name": model, "model_version": str(version), "outputs": told})
