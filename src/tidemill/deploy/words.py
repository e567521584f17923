"""Language models in a fleet: opened, asked with a stopwatch in hand, and ended; belongs to the owner's loop."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

from tidemill.core import registry
from tidemill.core.contracts import Generator, GeneratorFactory, Pieces
from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.generation import Embed, Generate
from tidemill.core.package import ModelConfig, ModelPackage
from tidemill.core.request import InferenceRequest, Piece, Usage, Work
from tidemill.core.settings import Settings
from tidemill.deploy.replica import Replica

log = logging.getLogger(__name__)

KIND: Final = "generator."


def generates(engine_name: str) -> bool:
    """Whether the engine of that name is one of language models."""
    return KIND + engine_name in registry.known()


def check(config: ModelConfig) -> None:
    """Raises `RefusedModel` for what a language model cannot do with its configuration."""
    if config.pre or config.post or config.each is not None:
        raise RefusedModel("its tidemill.toml names steps, and a language model takes none: it is asked with words")
    if config.warm_up:
        raise RefusedModel("[[warm_up]] is for a model that an engine here answers with tensors; leave it out")


async def open_generator(engine_name: str, package: ModelPackage, settings: Settings, seconds_max: float) -> Generator:
    """Raises `RefusedModel`, also for what an engine from outside raises; `TimeoutError` after `seconds_max`."""
    check(package.config)
    factory: GeneratorFactory = registry.load(KIND + engine_name)
    try:
        return await asyncio.wait_for(factory(package, settings), seconds_max)
    except (TidemillError, TimeoutError):
        raise
    except Exception as error:
        log.exception("the engine %s failed to load %s", engine_name, package.name)
        raise RefusedModel(f"the engine {engine_name!r} failed to load it: {type(error).__name__}: {error}") from error


async def end(generator: Generator, left: asyncio.Event, seconds_max: float) -> None:
    """Close `generator` once everybody has left it, or after `seconds_max`."""
    try:
        await asyncio.wait_for(left.wait(), seconds_max)
    except TimeoutError:
        log.warning("a language model that is unloaded still answers; its answers are cut")
    await generator.close()


def operation(work: Work) -> str:
    """What OpenTelemetry's conventions for generative AI (`gen_ai.operation.name`) call it, "" where they name none."""
    if isinstance(work, Generate):
        return "chat" if work.messages else "text_completion"
    return "embeddings" if isinstance(work, Embed) else ""


class WordsRun:
    """One request for words or embeddings, counted under its replica, which it holds until it is left. `laned`: it runs
    in the replica's lane, which counts requests and rows."""

    __slots__ = ("_asked", "_began", "_counted", "_first", "_laned", "_pieces", "_replica", "_run")

    def __init__(
        self,
        replica: Replica,
        request: InferenceRequest,
        run: AbstractAsyncContextManager[Pieces],
        laned: bool = False,
    ) -> None:
        self._replica = replica
        self._asked = operation(request.work), request.alias
        self._run = run
        self._laned = laned

    async def __aenter__(self) -> WordsRun:
        self._began = time.monotonic()
        self._first: float | None = None
        self._counted = False
        try:
            self._pieces = await self._run.__aenter__()
        except TidemillError as error:
            self._failed(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, TidemillError):
            self._failed(error)
        await self._run.__aexit__(kind, error, trace)

    def __aiter__(self) -> WordsRun:
        return self

    async def __anext__(self) -> Piece:
        piece = await anext(self._pieces)
        if self._first is None:
            self._first = time.monotonic()
        if piece.usage is not None:
            self._count(piece.usage, self._first, time.monotonic())
        return piece

    def _failed(self, error: TidemillError) -> None:
        if self._counted:
            return
        spent_s, stats = time.monotonic() - self._began, self._replica.stats
        if not self._laned:
            stats.failed_s += spent_s
        if self._asked[0]:
            stats.words_of(*self._asked).ended(error.code, spent_s)

    def _count(self, usage: Usage, first: float, now: float) -> None:
        self._counted = True
        stats = self._replica.stats
        if not self._laned:
            stats.rows += usage.rows
            stats.last_at = self._began
            stats.answered(now - self._began, 0.0)
        if not self._asked[0]:
            return  # it only told tokens, or how likely they are
        words = stats.words_of(*self._asked)
        words.ended("", now - self._began)
        words.prompt.observe(usage.prompt_tokens)
        stats.cached_tokens += usage.cached_tokens
        if usage.completion_tokens:
            words.first_s.observe(first - self._began)
            words.completion.observe(usage.completion_tokens)
        if usage.completion_tokens > 1:
            words.each_s.observe((now - first) / (usage.completion_tokens - 1))
