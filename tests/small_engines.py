"""Small true engines that fail, wait and remember as they are told, for tests of what stands before an engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from tidemill.core.errors import RefusedByEngine
from tidemill.core.request import InferenceRequest, Predict
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec

WAIT_S_MAX = 10.0
POISON = -1.0
ROWS = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))
_numbers = count()


class SmallEngine:
    """y = 2 x for FP32 [rows, 1]; refuses what holds `POISON`. `calls` holds each input seen, in order.

    While `gate` is clear a call waits in the engine; `entered` is set by each call.
    """

    def __init__(self, signature: Signature = ROWS) -> None:
        self.signature = signature
        self.calls: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.closed = 0
        self.running = 0
        self.overlapped = False

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.overlapped |= self.running > 0
        self.running += 1
        try:
            self.calls.append(inputs["x"].ravel().tolist())
            self.entered.set()
            assert self.gate.wait(WAIT_S_MAX)
            if (inputs["x"] == POISON).any():
                raise RefusedByEngine("poison")
            return self.answer(inputs["x"])
        finally:
            self.running -= 1

    def answer(self, x: Array) -> Tensors:
        return {"y": x * 2}

    def close(self) -> None:
        assert not self.running
        self.closed += 1


class FirstRowOnly(SmallEngine):
    """Answers one row whatever comes in: does not keep rows apart."""

    def answer(self, x: Array) -> Tensors:
        return {"y": x[:1] * 2}


class Raising(SmallEngine):
    """Raises what it is given, for poison only or always."""

    def __init__(self, make: Callable[[], BaseException], always: bool = True) -> None:
        super().__init__()
        self.make = make
        self.always = always

    def answer(self, x: Array) -> Tensors:
        if self.always or (x == POISON - 1).any():
            raise self.make()
        return super().answer(x)


class Odd(SmallEngine):
    """Answers with something that is no set of arrays."""

    def __init__(self, answered: Any) -> None:
        super().__init__()
        self.answered = answered

    def answer(self, x: Array) -> Tensors:
        return self.answered  # type: ignore[no-any-return]


def ask(
    *values: float, deadline: float = float("inf"), model: str = "m", version: int = 1, outputs: tuple[str, ...] = ()
) -> InferenceRequest:
    """`values` as FP32 [rows, 1] under `x`."""
    number = next(_numbers)
    array = np.array(values, np.float32).reshape(-1, 1)
    return InferenceRequest(model, version, Predict({"x": array}, outputs), f"r{number}", f"c{number}", deadline)


def soon() -> float:
    return time.monotonic() + WAIT_S_MAX
