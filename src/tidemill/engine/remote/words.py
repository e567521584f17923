"""The words of one answer, as they come out of its upstream, and their count; on the owner's loop."""

from __future__ import annotations

import logging
from typing import Protocol

from tidemill.core.errors import ServerRefused, UpstreamFailed
from tidemill.core.generation import Delta, Generate
from tidemill.core.request import Usage
from tidemill.core.streamed import EventReader
from tidemill.engine.remote import openai
from tidemill.engine.remote.counting import Counting
from tidemill.engine.remote.upstreams import Reply

log = logging.getLogger(__name__)


class Counted(Protocol):
    """A model, as this needs it. `recounted` tells that the log has been told."""

    name: str
    counting: Counting
    recounted: bool


class Said:
    """The words of one answer."""

    def __init__(self, work: Generate, model: Counted) -> None:
        self._work = work
        self._model = model
        self._fresh()

    def _fresh(self) -> None:
        self._told = openai.Said(self._work.choices)
        self._events = EventReader()
        self.over = False

    async def begin(self, reply: Reply) -> tuple[Delta, ...]:
        """As `more`, of an upstream that may not be the first one asked."""
        self._fresh()
        return await self.more(reply)

    async def more(self, reply: Reply) -> tuple[Delta, ...]:
        """The next deltas; with the last ones `over` is set. Raises `UpstreamFailed`, `httpx.TransportError`."""
        told = self._told
        while True:
            part = await reply.part()
            if not part:
                if not told.complete:
                    raise UpstreamFailed(f"{reply.place.who} ended in the middle of its answer")
                self.over = True
                return ()
            deltas: list[Delta] = []
            for event in self._read(part):
                deltas += told.take(event)
            if told.over:
                if not told.complete:
                    raise UpstreamFailed(f"{reply.place.who} ended in the middle of its answer")
                self.over = True
            if deltas or self.over:
                return tuple(deltas)

    def _read(self, part: bytes) -> list[bytes]:
        try:
            return self._events.feed(part)
        except ServerRefused as error:
            raise UpstreamFailed(error.message) from error

    def counted(self) -> Usage:
        """What the upstream counted, else what is counted here."""
        if self._told.usage is not None:
            return self._told.usage
        counting = recounted(self._model)
        completion = sum(map(counting.text, self._told.texts))
        return Usage(prompt_tokens=counting.prompt(self._work), completion_tokens=completion)


def recounted(model: Counted) -> Counting:
    """`model.counting`, and a line in the log, once."""
    if not model.recounted:
        model.recounted = True
        log.warning("an upstream tells no usage: tokens are counted here", extra={"model": model.name})
    return model.counting
