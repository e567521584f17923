"""The lane before one engine: a bounded queue, batches without delay, deadlines and cancellation before dispatch.

Runs in the process of its engine. Work-conserving: a batch starts as soon as the engine is free, with whatever waits;
batches form while the previous one runs. All state belongs to the loop; the engine runs on a thread of the lane, or on
the loop itself when it is faster than a thread is to reach: then a batch forms while the loop is busy reading requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from tidemill.core.contracts import Clock, Engine
from tidemill.core.errors import DeadlineExceeded, EngineFailed, ModelNotReady, Overloaded, TidemillError
from tidemill.core.quiet import WhenQuiet
from tidemill.core.request import InferenceRequest
from tidemill.core.tensor import Array, Tensors
from tidemill.core.tensor import rows as rows_of
from tidemill.engine import batching
from tidemill.observe.stats import ModelStats

log = logging.getLogger(__name__)

SWEEP_S = 0.05
"""How late a waiting request may learn that its deadline has passed."""
INLINE_ELEMENTS_MAX = 65_536
"""Larger batches always leave the loop free."""
INLINE_SLACK = 4.0
"""A batch under load takes several times what a row alone took on a warm, idle core, and is still worth no thread."""
QUICK_HOLD_S = 0.002
"""How long a quick model's batch may form on a busy loop: running it sooner would only keep the loop from reading."""
WEIGHED_EACH = 16
_SMOOTHING = 0.1


class LanePolicy(msgspec.Struct, frozen=True):
    """`batched`: dimension 0 may be joined. `rows_max`: rows of one batch. `waiting_max`: requests that wait.
    `inline_s_max`: a model that warmed up in less runs on the loop, until its batches take `INLINE_SLACK` times that; 0
    never."""

    batched: bool
    rows_max: int
    waiting_max: int
    inline_s_max: float


class _Entry:
    __slots__ = ("arrived", "deadline", "future", "inputs", "key", "outputs", "rows")

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
        self.future = future


class Lane:
    """Owns `engine` and closes it. `submit`, `drain` and `close` belong to the loop."""

    def __init__(self, engine: Engine, policy: LanePolicy, stats: ModelStats, clock: Clock, compute_s: float) -> None:
        """`compute_s`: what a first answer took when the engine was warmed up."""
        self.engine = engine
        self.policy = policy
        self.stats = stats
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Entry] = deque()
        self._running: list[_Entry] = []
        self._busy = False
        self._scheduled = False
        self._closed = False
        self._splits = True
        self._cpu_s = compute_s
        self._answered = 0
        self._submitted = 0
        self._when_quiet = WhenQuiet(self._loop, lambda: self._submitted, QUICK_HOLD_S, self._dispatch)
        self._quick = compute_s <= policy.inline_s_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lane")
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, request: InferenceRequest) -> asyncio.Future[Tensors]:
        """Queue `request`; cancelling the future takes it back, at no cost when its batch has not started.

        Raises `Overloaded` when the queue is full, `ModelNotReady` after `close`.
        """
        policy = self.policy
        if self._closed:
            raise ModelNotReady(f"model {request.model!r} version {request.version} is being unloaded")
        if len(self._waiting) >= policy.waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} requests wait for model {request.model!r}, the most allowed (--queue-max)",
                retry_after_s=1.0,
            )
        work = request.work
        rows, key = 1, None
        if policy.batched and self._splits:
            rows = rows_of(work.inputs)
            if rows:
                key = batching.joining_key(work.inputs, work.outputs)
        future: asyncio.Future[Tensors] = self._loop.create_future()
        self._waiting.append(_Entry(work.inputs, work.outputs, rows or 1, key, request.deadline, self._clock(), future))
        self._submitted += 1
        if not self._busy and not self._scheduled:
            self._idle.clear()
            self._schedule()
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return future

    async def drain(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    async def close(self) -> None:
        """Refuse what comes, finish what waits, give the engine back."""
        self._closed = True
        await self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        self.engine.close()

    # -- the loop's side -----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        self._scheduled = True
        if self._quick:
            self._when_quiet.hold()
        else:
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start the next batch of those that still want an answer."""
        self._scheduled = False
        waiting = self._waiting
        now = self._clock()
        while waiting:
            batch = [entry for entry in batching.take(waiting, self.policy.rows_max) if self._wanted(entry, now)]
            if not batch:
                continue
            self._busy = True
            self._running = batch
            for entry in batch:
                self.stats.queue.observe(now - entry.arrived)
            if self._inline(batch):
                outcome = self._answer(batch)
                # Through the loop once more, so that new requests are read between two batches.
                self._loop.call_soon(self._finish, batch, outcome)
            else:
                self._thread.submit(self._answer_and_tell, batch)
            return
        self._busy = False
        self._idle.set()

    def _wanted(self, entry: _Entry, now: float) -> bool:
        if entry.future.done():
            return False
        if entry.deadline <= now:
            self._expire(entry, now)
            return False
        return True

    def _expire(self, entry: _Entry, now: float) -> None:
        entry.future.set_exception(
            DeadlineExceeded(f"the deadline passed after {(now - entry.arrived) * 1000:.0f} ms in the queue")
        )

    def _inline(self, batch: list[_Entry]) -> bool:
        if not self._quick:
            return False
        elements = sum(array.size for entry in batch for array in entry.inputs.values())
        return elements <= INLINE_ELEMENTS_MAX

    def _finish(self, batch: list[_Entry], outcome: _Outcome) -> None:
        self._busy = False
        self._running = []
        now = self._clock()
        stats = self.stats
        if outcome.cpu_s is not None and self._quick:
            self._cpu_s += _SMOOTHING * (outcome.cpu_s - self._cpu_s)
            self._quick = self._cpu_s <= INLINE_SLACK * self.policy.inline_s_max
        self._splits = self._splits and outcome.splits
        stats.compute.observe(outcome.compute_s)
        stats.batch_rows.observe(float(sum(entry.rows for entry in batch)))
        for entry, answer in zip(batch, outcome.answers, strict=True):
            future = entry.future
            if future.done():
                continue
            if isinstance(answer, TidemillError):
                future.set_exception(answer)
            else:
                stats.requests += 1
                stats.rows += entry.rows
                stats.latency.observe(now - entry.arrived)
                future.set_result(answer)
        if self._waiting:
            self._schedule()
        else:
            self._idle.set()

    def _sweep(self) -> None:
        """Tell those past their deadline, waiting or running; stops when nothing is there."""
        now = self._clock()
        for entry in (*self._waiting, *self._running):
            if entry.deadline <= now and not entry.future.done():
                self._expire(entry, now)
        active = self._busy or self._waiting
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if active else None

    # -- the engine's side ---------------------------------------------------------------------------------------------

    def _answer_and_tell(self, batch: list[_Entry]) -> None:
        outcome = self._answer(batch)
        try:
            self._loop.call_soon_threadsafe(self._finish, batch, outcome)
        except RuntimeError:
            return  # the loop is gone, and those who asked with it

    def _answer(self, batch: list[_Entry]) -> _Outcome:
        started = self._clock()
        self._answered += 1
        weighed = self._answered % WEIGHED_EACH == 0  # the thread's clock costs microseconds: look now and then
        cpu_started = time.thread_time() if weighed else 0.0
        splits = True
        if len(batch) == 1:
            answers: list[Tensors | TidemillError] = [self._one(batch[0])]
        else:
            together = self._together(batch)
            if together is None:
                splits = False
            answers = together or [self._one(entry) for entry in batch]
        cpu_s = time.thread_time() - cpu_started if weighed else None
        return _Outcome(answers, self._clock() - started, cpu_s, splits)

    def _together(self, batch: list[_Entry]) -> list[Any] | None:
        """Answers of the joined batch; [] when one of them spoils it; None when the model does not keep rows apart."""
        try:
            whole = self.engine.predict(batching.join([entry.inputs for entry in batch]), batch[0].outputs)
        except TidemillError:
            return []
        except Exception as error:  # noqa: BLE001 - an engine from outside may raise anything; each is tried alone
            log.warning("a batch of %d failed, its requests run singly: %s", len(batch), error)
            return []
        return batching.part(whole, [entry.rows for entry in batch])

    def _one(self, entry: _Entry) -> Tensors | TidemillError:
        try:
            return self.engine.predict(entry.inputs, entry.outputs)
        except TidemillError as error:
            return error
        except Exception as error:
            log.exception("the engine failed")
            return EngineFailed(f"the engine failed: {type(error).__name__}")


class _Outcome:
    """`compute_s` by the clock; `cpu_s` of the thread alone, which a busy neighbour does not lengthen, where
    weighed."""

    __slots__ = ("answers", "compute_s", "cpu_s", "splits")

    def __init__(
        self, answers: list[Tensors | TidemillError], compute_s: float, cpu_s: float | None, splits: bool
    ) -> None:
        self.answers = answers
        self.compute_s = compute_s
        self.cpu_s = cpu_s
        self.splits = splits


def zeros_for(engine: Engine, rows: int = 1) -> dict[str, Array]:
    """Inputs of zeros that fit the signature: free dimensions are 1, dimension 0 is `rows`."""
    import numpy as np

    filled: dict[str, Array] = {}
    for spec in engine.signature.inputs:
        shape = [rows] if spec.shape is None else [1 if side == -1 else side for side in spec.shape]
        filled[spec.name] = (
            np.full(shape, b"", dtype=object) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
        )
    return filled
