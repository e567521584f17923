"""The child that holds vLLM: one task for each request under way, and one frame for what a step brought; its life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from functools import partial
from typing import Final

from tidemill.core.errors import EngineFailed, NotOffered, RefusedModel, TidemillError
from tidemill.core.generation import Delta, Tokenise
from tidemill.core.request import Usage
from tidemill.engine.generate.messages import Add, Gauges, Part, Step, Topic, encode
from tidemill.engine.generate.owner import Owner, met
from tidemill.engine.generate.started import BROKEN, leave
from tidemill.engine.on_vllm.engine import Engine
from tidemill.wire.peer import Bounds, Peer
from tidemill.wire.problems import problem_of

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
"""So often is it looked whether vLLM's processes live, where nothing else is to do."""


async def run(link: socket.socket, bounds: Bounds) -> None:
    """Load what the owner names, then generate until the owner is gone. Ends the process: what vLLM has under way in
    this loop and in threads would be waited for otherwise."""
    begun = await met(link, bounds)
    if begun is None:
        return
    owner, peer, opening = begun
    child = Child(owner, peer)
    try:
        engine = Engine(opening, child.stepped)
        await engine.warm_up()
    except RefusedModel as error:
        peer.tell(int(Topic.REFUSED), encode(error.message))
        peer.close()
        return
    engine.stand_back(opening.nice)  # not before: somebody waits for it to load
    peer.tell(int(Topic.READY), encode(engine.ready))
    try:
        await child.work(engine)
    except EngineFailed as error:
        log.error("%s", error.message)
        leave(BROKEN)
    engine.close()
    leave(os.EX_OK)


class Child:
    """`tasks` maps a request's number to who answers it."""

    def __init__(self, owner: Owner, peer: Peer) -> None:
        self._owner = owner
        self._peer = peer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._forgetting: set[asyncio.Task[None]] = set()
        self._parts: list[Part] = []
        self._gauges = Gauges()
        self._telling = False

    async def work(self, engine: Engine) -> None:
        """Returns when the owner is gone. Raises `EngineFailed` when a process of vLLM's has ended."""
        owner = self._owner
        while not owner.gone:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(owner.news.wait(), LOOK_S)
            if engine.dead:
                raise EngineFailed("a process of vLLM's has ended; what it logged tells why")
            owner.news.clear()
            self._take(engine)

    def stepped(self, gauges: Gauges) -> None:
        """The engine took a step. Told each time: one that says nothing counts as hung."""
        self._gauges = gauges if self._tasks else Gauges()  # a step's word may come after the last answer's end
        self._tell_soon()

    def _take(self, engine: Engine) -> None:
        owner = self._owner
        added, owner.added = owner.added, []
        dropped, owner.dropped = owner.dropped, []
        for each in added:
            begun = self._tasks[each.number] = asyncio.create_task(self._answer(engine, each))
            begun.add_done_callback(partial(self._ended, each.number))
        for number in dropped:
            task = self._tasks.get(number)
            if task is not None and task.cancel():
                forgetting = asyncio.create_task(self._forget(engine, number, task))
                self._forgetting.add(forgetting)
                forgetting.add_done_callback(self._forgetting.discard)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._tasks[number]
        if not self._tasks:  # vLLM tells nothing more until it has work
            self._gauges = Gauges()
            self._tell_soon()

    async def _forget(self, engine: Engine, number: int, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task])
        await engine.forget(str(number))

    async def _answer(self, engine: Engine, asked: Add) -> None:
        try:
            if asked.tokenise is not None:
                self._bring(_tokenised(engine, asked.number, asked.tokenise))
            elif asked.generate is not None:
                async for deltas, usage in engine.answer(str(asked.number), asked.generate):
                    self._bring(Part(asked.number, deltas, usage=usage))
            else:
                raise NotOffered("a language model generates and tokenises")
        except TidemillError as error:
            self._bring(Part(asked.number, problem=problem_of(error)))
        except Exception as error:  # tokenizers and vLLM raise what they like; whoever asked must hear of it
            log.exception("request %d broke", asked.number)
            failed = EngineFailed(f"vLLM broke on this request: {type(error).__name__}: {error}")
            self._bring(Part(asked.number, problem=problem_of(failed)))

    def _bring(self, part: Part) -> None:
        self._parts.append(part)
        self._tell_soon()

    def _tell_soon(self) -> None:
        """In the next turn of the loop, when all that a step brought has been put into words."""
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        parts, self._parts = tuple(self._parts), []
        self._telling = False
        self._peer.tell(int(Topic.STEP), encode(Step(parts, self._gauges)))


def _tokenised(engine: Engine, number: int, work: Tokenise) -> Part:
    if work.tokens:
        return Part(number, (Delta(0, engine.text.words(work.tokens), finish="stop"),), usage=Usage())
    tokens = tuple(engine.text.tokens(work))
    return Part(number, tokens=tokens, usage=Usage(prompt_tokens=len(tokens)))
