"""One batch through one engine, so that a request that spoils it fails alone; runs on the lane's thread or its loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Iterable
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from tidemill.core.contracts import Engine
from tidemill.core.errors import EngineFailed, TidemillError
from tidemill.core.tensor import Tensors
from tidemill.engine import batching, padding
from tidemill.engine.padding import Padder

log = logging.getLogger(__name__)


class Entry:
    """A request in a lane: what is asked, until when, and the future that its caller awaits.

    `arrived` and `deadline` are on the lane's clock. `key` is `batching.Waiting`'s. `counts` is False for a part of a
    request whose last part counts for it; `split` is set for one that is cut into parts. `length` is
    `padding.Padder`'s, 0 where there is none. `signature` is `Predict`'s. `started` is when its batch began, 0 before.
    """

    __slots__ = (
        "arrived", "counts", "deadline", "future", "inputs", "key", "length", "outputs", "rows",
        "signature", "split", "started", "traceparent",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Tensors,
        outputs: tuple[str, ...],
        rows: int,
        key: Hashable | None,
        deadline: float,
        arrived: float,
        future: asyncio.Future[Tensors],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.rows = rows
        self.key = key
        self.deadline = deadline
        self.arrived = arrived
        self.counts = True
        self.split: Any = None
        self.length = 0
        self.signature = ""
        self.future = future
        self.started = 0.0
        self.traceparent = ""


class Ran(msgspec.Struct, frozen=True, gc=False):
    """One run of the engine that went well: what it held, and what joining, the engine and parting took."""

    rows: int
    requests: int
    input_s: float
    infer_s: float
    output_s: float


class Outcome:
    """An answer or an error for each entry of a batch, and the runs of the engine that gave the answers.

    `compute_s` is by the clock; `cpu_s` of the thread alone, which a busy neighbour does not lengthen, where weighed.
    `splits` is False when the model does not keep the rows of a batch apart.
    """

    __slots__ = ("answers", "compute_s", "cpu_s", "runs", "splits")

    def __init__(self) -> None:
        self.answers: list[Tensors | TidemillError] = []
        self.runs: list[Ran] = []
        self.compute_s = 0.0
        self.cpu_s: float | None = None
        self.splits = True

    def runs_of_answers(self) -> Iterable[Ran]:
        """The run that gave each answer, in their order, of those that are no errors."""
        return repeat(self.runs[0]) if self.runs and self.runs[0].requests > 1 else self.runs


def run(engine: Engine, batch: list[Entry], weighed: bool, padder: Padder | None = None) -> Outcome:
    """Answer `batch` (joinable entries, at least one). Whatever the engine raises becomes an error of its requests."""
    outcome = Outcome()
    started = time.perf_counter()
    cpu_started = time.thread_time() if weighed else 0.0
    if len(batch) > 1:
        outcome.answers = _together(engine, batch, outcome, padder)
    if not outcome.answers:
        outcome.answers = [_alone(engine, entry, outcome) for entry in batch]
    if weighed:
        outcome.cpu_s = time.thread_time() - cpu_started
    outcome.compute_s = time.perf_counter() - started
    return outcome


def _together(
    engine: Engine, batch: list[Entry], outcome: Outcome, padder: Padder | None
) -> list[Tensors | TidemillError]:
    """Empty when the entries must be tried one by one."""
    longest = padding.longest([entry.length for entry in batch]) if padder else 0
    try:
        started = time.perf_counter()
        inputs = [entry.inputs for entry in batch]
        if padder and longest:
            inputs = [padder.pad(each, longest) for each in inputs]
        joined = batching.join(inputs)
        ready = time.perf_counter()
        whole = engine.predict(joined, batch[0].outputs)
        answered = time.perf_counter()
        rows = [entry.rows for entry in batch]
        parts = batching.part(whole, rows)
        if padder and longest and parts:
            parts = [padder.cut(each, entry.length) for each, entry in zip(parts, batch, strict=True)]
    except TidemillError:
        return []
    except Exception as error:  # noqa: BLE001 - an engine from outside may raise anything; each entry is tried alone
        # Its words are not logged: they may quote what was asked.
        log.warning("a batch of %d failed with %s, its requests run singly", len(batch), type(error).__name__)
        return []
    if parts is None:
        log.warning("the model does not keep the rows of a batch apart; its requests run singly from now on")
        outcome.splits = False
        return []
    parted_s = time.perf_counter() - answered
    outcome.runs.append(Ran(sum(rows), len(batch), ready - started, answered - ready, parted_s))
    return list(parts)


def _alone(engine: Engine, entry: Entry, outcome: Outcome) -> Tensors | TidemillError:
    started = time.perf_counter()
    try:
        answer = engine.predict(entry.inputs, entry.outputs)
        if all(isinstance(array, np.ndarray) for array in answer.values()):
            outcome.runs.append(Ran(entry.rows, 1, 0.0, time.perf_counter() - started, 0.0))
            return answer
        raise TypeError
    except TidemillError as error:
        return error
    except Exception as error:  # noqa: BLE001 - an engine from outside may raise anything
        log.error("the engine failed with %s", type(error).__name__)
        return EngineFailed(f"the engine failed with {type(error).__name__}; the model's owner can tell more")
