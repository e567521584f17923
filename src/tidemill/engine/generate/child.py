"""The child that generates: takes requests between steps and tells after each what it brought; its whole life.

Everything happens on one thread: a step holds the interpreter anyway, so another thread would only wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from itertools import count
from typing import Final

from tidemill.core.errors import EngineFailed, NotOffered, RefusedModel, TidemillError
from tidemill.core.generation import Delta, Tokenise
from tidemill.core.request import Usage
from tidemill.engine.generate.answering import Answering, worded
from tidemill.engine.generate.messages import Add, Gauges, Part, Step, Topic, encode
from tidemill.engine.generate.owner import Owner, met
from tidemill.engine.generate.pipeline import Pipeline
from tidemill.engine.generate.scoring import Scoring
from tidemill.wire.peer import Bounds, Peer
from tidemill.wire.problems import problem_of

log = logging.getLogger(__name__)

TOLD_S: Final = 0.5
"""A child at work says so this often, though a long prompt brings no words."""


async def run(link: socket.socket, bounds: Bounds) -> None:
    """Load what the owner names, then generate until the owner is gone."""
    begun = await met(link, bounds)
    if begun is None:
        return
    owner, peer, opening = begun
    try:
        pipeline = Pipeline(opening)
    except RefusedModel as error:
        peer.tell(int(Topic.REFUSED), encode(error.message))
        peer.close()
        return
    os.nice(opening.nice)  # not before: somebody waits for it to load
    peer.tell(int(Topic.READY), encode(pipeline.ready))
    await Child(owner, peer, pipeline, opening.running_max).work()
    peer.close()


class Child:
    """The loop. `under_way` maps a request's number to what is known of it."""

    def __init__(self, owner: Owner, peer: Peer, pipeline: Pipeline, running_max: int) -> None:
        self._owner = owner
        self._peer = peer
        self._pipeline = pipeline
        self._running_max = running_max
        self._ids = count(1)
        self._under_way: dict[int, Answering | Scoring] = {}
        self._told = Gauges()
        self._told_at = 0.0

    async def work(self) -> None:
        """Returns when the owner is gone. Raises `EngineFailed` when the pipeline broke."""
        owner, pipeline = self._owner, self._pipeline
        while not owner.gone:
            if not pipeline.busy() and not owner.news.is_set():
                await owner.news.wait()
            owner.news.clear()
            parts = self._take()
            if pipeline.busy():
                pipeline.step()
                parts += self._brought()
                if not pipeline.busy():
                    pipeline.step()  # the engine counts the blocks in use as a step begins: with nothing left, none
            gauges = self._gauges()
            now = time.monotonic()
            if parts or gauges != self._told or now - self._told_at > TOLD_S:
                self._told, self._told_at = gauges, now
                self._peer.tell(int(Topic.STEP), encode(Step(tuple(parts), gauges)))
            await asyncio.sleep(0)  # what the owner has sent meanwhile is read here, and what was told is written

    def _take(self) -> list[Part]:
        """Begin what was asked, drop what nobody wants; parts for what is answered, or refused, at once."""
        owner = self._owner
        added, owner.added = owner.added, []
        dropped, owner.dropped = owner.dropped, []
        parts = [part for each in added if (part := self._begin(each)) is not None]
        for number in dropped:
            answering = self._under_way.pop(number, None)
            if answering is not None:
                answering.drop()
        return parts

    def _begin(self, asked: Add) -> Part | None:
        try:
            if asked.tokenise is not None:
                return self._tokenised(asked.number, asked.tokenise)
            answering = self._answering(asked)
            answering.begin()
        except TidemillError as error:
            return _failed(asked.number, error)
        except Exception as error:  # the others go on: what is unforeseen here ends one request, not the child
            log.exception("a request failed in a way that was not foreseen")
            return _failed(asked.number, EngineFailed(f"the engine failed on this request: {type(error).__name__}"))
        self._under_way[asked.number] = answering
        return None

    def _answering(self, asked: Add) -> Answering | Scoring:
        if asked.score is not None:
            return Scoring(self._pipeline, asked.score, lambda: next(self._ids))
        if asked.generate is None:
            raise NotOffered("a language model generates and tokenises")
        return Answering(self._pipeline, asked.generate, lambda: next(self._ids))

    def _tokenised(self, number: int, work: Tokenise) -> Part:
        pipeline = self._pipeline
        if work.tokens:
            spelled = b"".join(pipeline.spelling[each] for each in pipeline.known(work.tokens))
            text = spelled.decode("utf-8", "replace")
            return Part(number, (Delta(0, text, finish="stop"),), usage=Usage())
        if work.messages:
            tokens = pipeline.tokens(worded(pipeline, work.messages, work.tools), special=False)
        else:
            tokens = pipeline.tokens(work.text, work.special)
        return Part(number, tokens=tuple(tokens), usage=Usage(prompt_tokens=len(tokens)))

    def _brought(self) -> list[Part]:
        parts = []
        for number, answering in list(self._under_way.items()):
            try:
                deltas = tuple(answering.deltas())
            except (EngineFailed, TidemillError) as error:
                answering.drop()
                del self._under_way[number]
                parts.append(_failed(number, error))
                continue
            if answering.over:
                del self._under_way[number]
                logprobs = answering.logprobs if isinstance(answering, Scoring) else None
                parts.append(Part(number, deltas, usage=answering.usage, logprobs=logprobs))
            elif deltas:
                parts.append(Part(number, deltas))
        return parts

    def _gauges(self) -> Gauges:
        under_way = len(self._under_way)
        running = min(under_way, self._running_max)
        return Gauges(running, under_way - running, self._pipeline.kv_share if self._pipeline.busy() else 0.0)


def _failed(number: int, error: TidemillError) -> Part:
    return Part(number, problem=problem_of(error))
