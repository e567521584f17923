"""The lane before a model's engines: a bounded queue, batches without delay, deadlines and cancellation honoured.

Runs in the process of its engines. Work-conserving: a batch starts as soon as an engine is free, with whatever waits;
batches form while those before them run. All state belongs to the loop; an engine runs on a thread of its seat
(`crew.py`), or on the loop itself when it is faster than a thread is to reach: then a batch forms while the loop is
busy reading requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tidemill.core.contracts import Clock, Engine
from tidemill.core.errors import DeadlineExceeded, ModelNotReady, Overloaded, TidemillError
from tidemill.core.quiet import WhenQuiet
from tidemill.core.request import InferenceRequest
from tidemill.core.tensor import Array, Signature, Tensors
from tidemill.core.tensor import rows as rows_of
from tidemill.engine import batching
from tidemill.engine.company import Company
from tidemill.engine.crew import Crew, Seat
from tidemill.engine.padding import Padder
from tidemill.engine.run_batch import Entry, Outcome, run
from tidemill.engine.split import Split
from tidemill.observe import trace
from tidemill.observe.stats import ModelStats

log = logging.getLogger(__name__)

SWEEP_S = 0.05
"""How late a waiting request may learn that its deadline has passed."""
INLINE_ELEMENTS_MAX = 65_536
"""Larger batches always leave the loop free."""
INLINE_SLACK = 10.0
"""A batch of many rows takes several times what a row alone took, and is still worth no thread."""
QUICK_HOLD_S = 0.002
"""How long a quick model's batch may form on a busy loop: running it sooner would only keep the loop from reading."""
LOOP_HELD_S_MAX = 0.02
"""A batch that worked for longer is for a long time the last of its model to run on the loop."""
WEIGHED_EACH = 16
_SMOOTHING = 0.1


class LanePolicy(msgspec.Struct, frozen=True):
    """`batched`: dimension 0 may be joined. `rows_max`: rows of one batch. `waiting_max`: requests that wait.
    `inline_s_max`: a model that warmed up in less runs on the loop, while its batches take less than `INLINE_SLACK`
    times that; 0 never. `padder`: lengths may be joined too. `delay_s_max`: how long the oldest may wait for others
    while an engine is free, for a full batch or one of the `preferred` sizes; 0 never. `further` are the signatures
    beside the model's own of which dimension 0 may be joined."""

    batched: bool
    rows_max: int
    waiting_max: int
    inline_s_max: float
    padder: Padder | None = None
    delay_s_max: float = 0.0
    preferred: tuple[int, ...] = ()
    further: frozenset[str] = frozenset()


class Lane:
    """Owns its engines and closes them. `submit`, `drain` and `close` belong to the loop.

    All signatures of a model stand in one queue and share its bounds, engines' places and counts; a batch is of one of
    them, and passes over the others. Requests for another than the model's own are neither padded nor run on the loop.
    """

    def __init__(
        self,
        engine: Engine,
        policy: LanePolicy,
        stats: ModelStats,
        clock: Clock,
        compute_s: float,
        narrow: Sequence[Engine] = (),
        further: Mapping[str, Sequence[Engine]] | None = None,
    ) -> None:
        """`compute_s`: what a first answer took when the engine was warmed up. `narrow`: the same model, to run side by
        side where many ask at once. `further`: `Crew`'s."""
        self._crew = Crew(engine, narrow, further)
        self.policy = policy
        self.stats = stats
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Entry] = deque()
        self._scheduled = False
        self._closed = False
        self._mixed = False  # whether one for another signature may wait among them
        self._joined = set(policy.further | {""} if policy.batched else policy.further)
        self._waste_max = policy.padder.waste_max if policy.padder else 0.0
        self._cpu_s = compute_s
        self._suspected = False
        self._batches = 0
        self._submitted = 0
        self._when_quiet = WhenQuiet(self._loop, lambda: self._submitted, QUICK_HOLD_S, self._dispatch)
        self._quick = self._was_quick = compute_s <= policy.inline_s_max
        self._company = Company()
        self._held = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._delays = bool(self._joined) and policy.delay_s_max > 0
        self._delayed: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def instances(self) -> int:
        """Batches that may run at once."""
        return self._crew.size

    def submit(self, request: InferenceRequest) -> asyncio.Future[Tensors]:
        """Queue `request`; cancelling the future takes it back, at no cost when its batch has not started.

        Raises `Overloaded` when the queue is full, `ModelNotReady` after `close`, `UnknownSignature`.
        """
        policy = self.policy
        if self._closed:
            raise ModelNotReady(f"model {request.model!r} version {request.version} is being unloaded")
        if len(self._waiting) >= policy.waiting_max and self._still_waiting() >= policy.waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} requests wait for model {request.model!r}, the most allowed (--queue-max)",
                retry_after_s=1.0,
            )
        work = request.tensors
        signature = work.signature
        rows, key = 1, None
        if signature in self._joined:
            rows = rows_of(work.inputs)
            if rows:
                key = batching.joining_key(work.inputs, work.outputs)
        future: asyncio.Future[Tensors] = self._loop.create_future()
        padder, length = policy.padder, 0
        if signature:
            self._crew.check(signature)
            self._mixed = True
            key = key and (signature, key)
        elif padder is not None and key is not None:
            length = padder.length(work.inputs)
            key = padder.joining_key(work.inputs, work.outputs) if length else key
        entry = Entry(work.inputs, work.outputs, rows or 1, key, request.deadline, self._clock(), future)
        entry.length = length
        entry.signature = signature
        entry.traceparent = request.traceparent
        self._enqueue(Split(entry, self._ask_whole).rest if key is not None and rows > policy.rows_max else entry)
        return future

    def _ask_whole(self, entry: Entry) -> None:
        """For a model that answered the parts of a larger request with other rows than theirs."""
        self._joined.discard(entry.signature)
        log.warning("the model does not keep the rows of a batch apart; its requests run whole from now on")
        entry.key = None
        self._enqueue(entry)

    def _enqueue(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._submitted += 1
        self._crew.arrived(len(self._waiting))
        if not self._scheduled and self._crew.ready:
            self._idle.clear()
            self._schedule()
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    async def drain(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    async def close(self) -> None:
        """Refuse what comes, finish what waits, give the engine back."""
        self._closed = True
        if self._delayed is not None:
            self._delayed.cancel()
            self._look_again()
        await self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._crew.close()

    def dismiss(self) -> None:
        """Refuse what comes and what waits; what runs is finished."""
        self._closed = True
        for entry in self._waiting:
            if not entry.future.done():
                entry.future.set_exception(ModelNotReady("the model was unloaded before this request's turn came"))

    # -- the loop's side -----------------------------------------------------------------------------------------------

    def _still_waiting(self) -> int:
        """How many wait, when those that gave up have left the queue."""
        self._waiting = deque(entry for entry in self._waiting if not entry.future.done())
        return len(self._waiting)

    def _schedule(self) -> None:
        self._scheduled = True
        if not self._quick:
            self._loop.call_soon(self._dispatch)
            return
        self._held = self._delays or len(self._waiting) > 1 or self._company.awaited()
        if self._held:
            self._when_quiet.hold()
        else:
            self._dispatch()

    def _dispatch(self) -> None:
        """Start the next batches of those that still want an answer, one for each free engine."""
        self._scheduled = False
        waiting = self._waiting
        now = self._clock()
        while waiting:
            on_loop = self._quick and not waiting[0].signature and _elements(waiting[0]) <= INLINE_ELEMENTS_MAX
            chosen = (self._crew.on_loop if on_loop else self._crew.next)(len(waiting))
            if chosen is None:
                return
            if self._delays and self._held_back(now):
                return
            seat, share = chosen
            batch = [entry for entry in self._take(share) if self._wanted(entry, now)]
            if batch:
                self._start(seat, batch, now)
        self._mixed = False
        if self._crew.idle:
            self._idle.set()

    def _take(self, share: int) -> list[Entry]:
        """The next batch: a part of the oldest, where that is larger than a batch."""
        oldest, rows_max = self._waiting[0], self.policy.rows_max
        if oldest.split is not None and oldest.rows > rows_max and not oldest.future.done():
            return [oldest.split.cut(rows_max)]
        if self.policy.preferred:
            rows_max = batching.rows_wanted(
                batching.at_hand(self._waiting, rows_max, self._mixed), rows_max, self.policy.preferred
            )
        return batching.take(self._waiting, rows_max, share, self._waste_max, self._mixed)

    def _held_back(self, now: float) -> bool:
        """Whether the next batch waits for more rows although an engine is free; looks again when it has waited."""
        policy, oldest = self.policy, self._waiting[0]
        left = oldest.arrived + policy.delay_s_max - now
        rows = batching.at_hand(self._waiting, policy.rows_max, self._mixed)
        if left <= 0 or self._closed or oldest.future.done():
            return False
        if not batching.worth_waiting(rows, policy.rows_max, policy.preferred):
            return False
        if self._delayed is None:
            self._delayed = self._loop.call_later(left, self._look_again)
        return True

    def _look_again(self) -> None:
        self._delayed = None
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._dispatch()

    def _start(self, seat: Seat, batch: list[Entry], now: float) -> None:
        self._crew.begin(seat, batch)
        for entry in batch:
            self.stats.queue.observe(now - entry.arrived)
            entry.started = now
        self._batches += 1
        # The thread's clock costs microseconds: look now and then, and where it matters.
        weighed = self._suspected or self._batches % WEIGHED_EACH == 0
        held, self._held = self._held, False
        if self._inline(batch):
            outcome = run(seat.engines[""], batch, weighed, self.policy.padder)
            if held:
                self._company.held(len(batch))
                # Through the loop once more, so that new requests are read between two batches.
                self._loop.call_soon(self._finish, seat, outcome)
            else:
                self._finish(seat, outcome)
        else:
            seat.worker.submit(self._run_on_thread, seat, batch, weighed)

    def _wanted(self, entry: Entry, now: float) -> bool:
        if entry.future.done():
            return False
        if entry.deadline <= now:
            self._expire(entry, now)
            return False
        return True

    def _expire(self, entry: Entry, now: float) -> None:
        self.stats.failed_s += now - entry.arrived
        entry.future.set_exception(
            DeadlineExceeded(f"the deadline passed after {(now - entry.arrived) * 1000:.0f} ms without an answer")
        )

    def _inline(self, batch: list[Entry]) -> bool:
        if not self._quick or batch[0].signature:
            return False
        return sum(map(_elements, batch)) <= INLINE_ELEMENTS_MAX

    def _finish(self, seat: Seat, outcome: Outcome) -> None:
        batch = self._crew.end(seat)
        now = self._clock()
        stats = self.stats
        if self._was_quick and not batch[0].signature:
            self._weigh(outcome)
        if not outcome.splits:
            self._joined.discard(batch[0].signature)
        stats.compute.observe(outcome.compute_s)
        stats.batch_rows.observe(float(sum(entry.rows for entry in batch)))
        stats.last_at = batch[-1].arrived
        for ran in outcome.runs:
            stats.ran(ran.rows, ran.input_s, ran.infer_s, ran.output_s)
        if trace.STATE.recorder is not None:
            _record(batch, outcome)
        runs = iter(outcome.runs_of_answers())
        for entry, answer in zip(batch, outcome.answers, strict=True):
            future = entry.future
            if isinstance(answer, TidemillError):
                if not future.done():
                    stats.failed_s += now - entry.arrived
                    future.set_exception(answer)
                continue
            ran = next(runs)
            if future.done():
                continue
            stats.rows += entry.rows
            stats.shared.add(int(entry.counts), ran.input_s, ran.infer_s, ran.output_s)
            if entry.counts:
                begun = entry.started if entry.split is None else entry.split.started
                stats.answered(now - entry.arrived, begun - entry.arrived)
            future.set_result(answer)
        if self._waiting:
            if not self._scheduled:
                self._schedule()
        elif self._crew.idle:
            self._idle.set()

    def _weigh(self, outcome: Outcome) -> None:
        """Decide where the next batch runs. One that took long by the clock alone may have been kept from its core by
        others: the next is weighed."""
        self._suspected = outcome.cpu_s is None and outcome.compute_s > LOOP_HELD_S_MAX
        if outcome.cpu_s is not None:
            self._cpu_s += _SMOOTHING * (outcome.cpu_s - self._cpu_s)
            if outcome.cpu_s > LOOP_HELD_S_MAX:
                self._cpu_s = max(self._cpu_s, outcome.cpu_s)  # off the loop until many batches were quick again
        self._quick = self._cpu_s <= INLINE_SLACK * self.policy.inline_s_max

    def _sweep(self) -> None:
        """Tell those past their deadline, waiting or running; stops when nothing is there."""
        now = self._clock()
        for entry in (*self._waiting, *self._crew.running):
            if entry.deadline <= now and not entry.future.done():
                self._expire(entry, now)
        active = self._waiting or not self._crew.idle
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if active else None

    def _run_on_thread(self, seat: Seat, batch: list[Entry], weighed: bool) -> None:
        """On the seat's thread."""
        outcome = run(seat.engines[batch[0].signature], batch, weighed, self.policy.padder)
        try:
            self._loop.call_soon_threadsafe(self._finish, seat, outcome)
        except RuntimeError:
            return  # the loop is gone, and those who asked with it


def _elements(entry: Entry) -> int:
    return sum(array.size for array in entry.inputs.values())


def _record(batch: list[Entry], outcome: Outcome) -> None:
    rows = sum(entry.rows for entry in batch)
    for entry in batch:
        if entry.traceparent:
            ended = entry.started + outcome.compute_s
            trace.ran(entry.traceparent, entry.arrived, entry.started, ended, entry.rows, rows, len(batch))


def zeros_for(signature: Signature, rows: int = 1) -> dict[str, Array]:
    """Inputs of zeros that fit the signature: free dimensions are 1, dimension 0 is `rows`."""
    filled: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = [rows] if spec.shape is None else [1 if side == -1 else side for side in spec.shape]
        filled[spec.name] = (
            np.full(shape, b"", dtype=object) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
        )
    return filled
