"""`Generator` in the owner process: hands requests to the child and its words to those who asked; belongs to a loop."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from types import TracebackType
from typing import Any, Final

import numpy as np

from tidemill.core.errors import (
    DeadlineExceeded,
    EngineFailed,
    MissingPart,
    ModelNotReady,
    NotOffered,
    Overloaded,
    RefusedModel,
    TidemillError,
    WrongValue,
)
from tidemill.core.generation import Busy, Constraint, Delta, Generate, Score, Speaks, Tokenise
from tidemill.core.package import ModelPackage
from tidemill.core.request import InferenceRequest, Piece, Usage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Tensors
from tidemill.engine.generate.checking import Checking
from tidemill.engine.generate.exported import exported, quickened
from tidemill.engine.generate.judge import Judge
from tidemill.engine.generate.messages import Add, Gauges, Opening, Part, Step, Topic, encode
from tidemill.engine.generate.process import Child, Listener
from tidemill.wire.peer import Bounds
from tidemill.wire.problems import error_from

log = logging.getLogger(__name__)

MODULE: Final = "tidemill.engine.generate"
"""What the child runs."""
WATCH_PARTS: Final = 4
"""So often within the longest silence it is looked whether there is one."""
RETRY_AFTER_S: Final = 1.0
RESTART_RETRY_S: Final = 5.0
"""About what a small model takes to load again."""


async def load(package: ModelPackage, settings: Settings, scores: bool = False) -> ChildGenerator:
    """One that `scores` answers `Score` and `Tokenise`, one request after another. Raises `RefusedModel`,
    `NotCompiled`, `MissingPart`."""
    if find_spec("openvino_genai") is None:  # it is the child that loads it
        raise MissingPart("language models need openvino-genai: pip install 'tidemill[llm]'")
    if package.format == "huggingface":
        package = await asyncio.to_thread(exported, package, settings.export_weights)
    elif package.format == "gguf":
        package = await asyncio.to_thread(quickened, package, settings.export_weights)
    kept = tempfile.TemporaryDirectory(prefix="tidemill-")
    return await opened(package, settings, MODULE, {}, scores, kept)


async def opened(
    package: ModelPackage,
    settings: Settings,
    module: str,
    options: dict[str, Any],
    scores: bool = False,
    kept: tempfile.TemporaryDirectory[str] | None = None,
) -> ChildGenerator:
    """A language model in a child that runs `module`; `kept` goes when it is closed. Raises `RefusedModel`."""
    threads = settings.threads if package.config.threads is None else package.config.threads
    opening = Opening(
        path=str(package.path),
        format=package.format,
        threads=threads or os.cpu_count() or 1,
        kv_bytes=settings.kv_cache_bytes,
        running_max=1 if scores else settings.generate_running_max,
        step_tokens_max=settings.generate_step_tokens,
        template_s_max=settings.template_ms_max / 1000,
        nice=settings.generate_nice,
        options=options,
        scores=scores,
        kept="" if kept is None else kept.name,
    )
    bounds = Bounds(settings.frame_bytes_max, 1, settings.link_buffer_bytes)
    under_way_max = settings.generate_running_max + (package.config.batching.queue_max or settings.queue_max)
    made = ChildGenerator(
        package.name,
        module,
        opening,
        bounds,
        under_way_max,
        settings.generate_restart_ms_max / 1000,
        settings.constraint_ms_max / 1000,
        settings.constraint_waiting_max,
        settings.constraint_running_max,
        settings.generate_silent_ms_max / 1000,
        kept,
    )
    await made.open()
    return made


class ChildGenerator:
    """`gauges` are those of the last step."""

    def __init__(
        self,
        name: str,
        module: str,
        opening: Opening,
        bounds: Bounds,
        under_way_max: int,
        restart_s_max: float,
        constraint_s_max: float,
        constraints_waiting_max: int,
        constraints_running_max: int,
        silent_s_max: float,
        kept: tempfile.TemporaryDirectory[str] | None,
    ) -> None:
        self.speaks = Speaks(0)
        self.gauges = Gauges()
        self.child = Child(name, opening, bounds, restart_s_max, self, module)

        def checks(listener: Listener) -> Child:
            return Child(name, opening, bounds, restart_s_max, listener, module, ("--check",))

        judges = [Judge(checks, constraint_s_max) for _ in range(constraints_running_max)]
        self.checking = Checking(judges, constraints_waiting_max)
        self._under_way_max = under_way_max
        self._silent_s_max = silent_s_max
        self._kept = kept
        self._watching: asyncio.TimerHandle | None = None
        self._under_way: dict[int, Answer] = {}
        self._numbers = count(1)
        self._closed = False

    @property
    def under_way(self) -> int:
        """Requests that were begun and have not ended."""
        return len(self._under_way)

    async def open(self) -> None:
        """Raises `RefusedModel`."""
        try:
            self.speaks = (await self.child.open()).speaks
        except BaseException:
            await self.close()
            raise
        self._watch()

    def busy(self) -> Busy:
        gauges = self.gauges
        return Busy(gauges.running, gauges.waiting, gauges.kv_share, self.child.restarts)

    def run(self, request: InferenceRequest) -> Answer:
        return Answer(self, request)

    async def close(self) -> None:
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        self._fail_all(ModelNotReady("the model is being unloaded"))
        await asyncio.gather(self.child.close(), self.checking.close())
        if self._kept is not None:
            self._kept.cleanup()

    # -- what answers call ---------------------------------------------------------------------------------------------

    def begin(self, answer: Answer, work: Generate | Tokenise | Score) -> int:
        """The number of the request. Raises `Overloaded`, `ModelNotReady`, `WrongValue`."""
        if self._closed:
            raise ModelNotReady("the model is being unloaded")
        peer = self.child.peer
        if peer is None:
            raise ModelNotReady("the process that generates is being started again", retry_after_s=RESTART_RETRY_S)
        if len(self._under_way) >= self._under_way_max:
            raise Overloaded(
                f"{len(self._under_way)} requests run or wait for this model, the most allowed",
                retry_after_s=RETRY_AFTER_S,
            )
        number = next(self._numbers)
        generate = work if isinstance(work, Generate) else None
        tokenise = work if isinstance(work, Tokenise) else None
        score = work if isinstance(work, Score) else None
        try:
            header = encode(Add(number, generate, tokenise, score))
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            raise WrongValue(f"the request holds what is no text or number: {error}") from error
        if not self._under_way:
            self.child.heard_at = time.monotonic()  # it was silent for want of work
        peer.tell(int(Topic.ADD), header)
        self._under_way[number] = answer
        return number

    def drop(self, number: int) -> None:
        """Nobody wants that answer any more; does nothing for one that has ended."""
        if self._under_way.pop(number, None) is not None and self.child.peer is not None:
            self.child.peer.tell(int(Topic.DROP), encode(number))

    # -- `process.Listener` --------------------------------------------------------------------------------------------

    def brought(self, step: Step) -> None:
        self.gauges = step.gauges
        for part in step.parts:
            answer = self._under_way.get(part.number)
            if answer is None:
                continue  # it was dropped meanwhile
            if part.usage is not None or part.problem is not None:
                del self._under_way[part.number]
            answer.brought(part)

    def lost(self, why: str) -> None:
        self.gauges = Gauges()
        self._fail_all(
            EngineFailed(
                f"the process that generates has ended ({why}); it is started again", retry_after_s=RESTART_RETRY_S
            )
        )

    def _watch(self) -> None:
        """Kill a child that works and says nothing; it is started again."""
        silent_s = time.monotonic() - self.child.heard_at
        if self._under_way and self.child.peer is not None and silent_s > self._silent_s_max:
            log.error("the process that generates says nothing for %.1f s; it is killed", silent_s)
            self.child.kill()
        self._watching = asyncio.get_running_loop().call_later(self._silent_s_max / WATCH_PARTS, self._watch)

    def _fail_all(self, error: TidemillError) -> None:
        under_way, self._under_way = self._under_way, {}
        for answer in under_way.values():
            answer.failed(error)


class Answer:
    """One request: begun with the block, dropped with it where it has not ended. What comes while nobody reads is kept:
    no more than the model's context holds."""

    __slots__ = ("_alarm", "_deltas", "_error", "_generator", "_number", "_request", "_tensors", "_usage", "_waiter")

    def __init__(self, generator: ChildGenerator, request: InferenceRequest) -> None:
        self._generator = generator
        self._request = request
        self._number: int | None = None
        self._deltas: list[Delta] = []
        self._tensors: Tensors = {}
        self._usage: Usage | None = None
        self._error: TidemillError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Answer:
        work = self._request.work
        if not isinstance(work, Generate | Tokenise | Score):
            raise NotOffered(
                f"model {self._request.model!r} is a language model: it takes no tensors and embeds nothing; ask it at"
                " /v1/chat/completions or /v1/completions"
            )
        remaining_s = self._request.deadline - time.monotonic()
        if remaining_s <= 0:
            raise _late()
        if isinstance(work, Generate) and work.constraint is not None:
            await self._check(work.constraint, remaining_s)
            remaining_s = self._request.deadline - time.monotonic()
        self._number = self._generator.begin(self, work)
        self._alarm = asyncio.get_running_loop().call_later(remaining_s, self._ring)
        return self

    async def _check(self, constraint: Constraint, seconds_max: float) -> None:
        try:
            await asyncio.wait_for(self._generator.checking.check(constraint), seconds_max)
        except TimeoutError:
            raise _late() from None
        except RefusedModel as error:
            raise EngineFailed(f"the process that checks what answers must fit does not start: {error}") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> Piece:
        while not self._deltas and self._usage is None:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._number is None:
                raise StopAsyncIteration
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        deltas, self._deltas = tuple(self._deltas), []
        usage, self._usage = self._usage, None
        if usage is not None:
            self._end()
        return Piece(self._tensors, usage, deltas)

    def brought(self, part: Part) -> None:
        self._deltas += part.deltas
        self._usage = part.usage
        if part.tokens is not None:
            self._tensors = {"tokens": np.array(part.tokens, np.int64)}
        if part.logprobs is not None:
            self._tensors = {"logprobs": np.array(part.logprobs, np.float32)}
        if part.problem is not None:
            self._error = error_from(part.problem)
        self._wake()

    def failed(self, error: TidemillError) -> None:
        self._error = type(error)(error.message, retry_after_s=error.retry_after_s)  # each raises its own
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ring(self) -> None:
        if self._number is not None and self._usage is None and self._error is None:
            self._generator.drop(self._number)
            self.failed(_late())

    def _end(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._number is not None:
            self._generator.drop(self._number)
            self._number = None


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was complete; ask for fewer tokens, or more time")
