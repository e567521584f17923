"""Has the work of one request done, and words what comes; runs on the owner's loop.

One request may hold several pieces of work (a completion of several prompts): each is a reply and a charge of its own,
and they end together. What could not be worded is not charged, and no last word leaves before its charge is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from tidemill.core.errors import EngineFailed
from tidemill.core.generation import Delta
from tidemill.core.request import Caller, InferenceRequest, Usage
from tidemill.doors.openai.asked import Teller, Whole, total
from tidemill.serve.answer import Service


async def whole(
    service: Service, caller: Caller, requests: Sequence[InferenceRequest], word: Callable[[list[Whole]], bytes]
) -> bytes:
    """The answer, worded by `word` while all charges are open, once they are settled."""
    meeting = _Meeting(len(requests), word)

    async def one(index: int, request: InferenceRequest) -> None:
        deltas: list[Delta] = []
        async with service.open(caller, request) as pieces:
            async for piece in pieces:
                deltas += piece.deltas
                if piece.usage is not None:
                    await meeting.arrive(index, Whole(deltas, piece.tensors, piece.usage))
                    break
            else:
                raise _unended(request)

    await together([one(index, request) for index, request in enumerate(requests)])
    return meeting.words


async def streamed(
    service: Service,
    caller: Caller,
    requests: Sequence[InferenceRequest],
    teller: Teller,
    put: Callable[[bytes], Awaitable[None]],
) -> bytes:
    """`put` what is said as it comes; the last of it, which may leave now, is returned."""
    begun = False
    usages: list[Usage] = []

    async def one(index: int, request: InferenceRequest) -> bytes:
        nonlocal begun
        async with service.open(caller, request) as pieces:
            async for piece in pieces:
                words = b"" if begun else teller.begin()
                begun = True
                words += b"".join([teller.told(index, delta) for delta in piece.deltas])
                if piece.usage is not None:
                    usages.append(piece.usage)
                    break
                await put(words)
            else:
                raise _unended(request)
        if len(requests) == 1:
            return words
        await put(words)
        return b""

    last = await together([one(index, request) for index, request in enumerate(requests)])
    return b"".join(last) + teller.end(total(usages))


async def together(work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All results. The first error ends the others, and is raised when they have ended."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Meeting:
    """Where the pieces of work wait for one another with their charges open; the last to come words the answer."""

    def __init__(self, count: int, word: Callable[[list[Whole]], bytes]) -> None:
        self._found: list[Whole | None] = [None] * count
        self._word = word
        self._over = asyncio.Event()
        self.words = b""

    async def arrive(self, index: int, found: Whole) -> None:
        self._found[index] = found
        complete = [each for each in self._found if each is not None]
        if len(complete) == len(self._found):
            self.words = self._word(complete)
            self._over.set()
        await self._over.wait()


def _unended(request: InferenceRequest) -> EngineFailed:
    return EngineFailed(f"the engine of model {request.model!r} ended its answer without counting it")
