"""One request for embeddings or tokens: texts, the model's own lane, vectors; runs on the owner's loop and the steps'
threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np

from tidemill.core.contracts import Fleet
from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.generation import Delta, Embed, Tokenise
from tidemill.core.request import InferenceRequest, Piece, Usage
from tidemill.core.tensor import Array
from tidemill.deploy.calls import ask, gather
from tidemill.deploy.embedder import Embedder, groups
from tidemill.deploy.one_piece import OnePiece
from tidemill.deploy.steps import StepPolicy, StepThreads
from tidemill.engine.lane import Lane

EMBEDDING = "embedding"
TOKENS = "tokens"


class Embeds(Protocol):
    """A replica, as this needs it."""

    name: str
    version: int
    batched: bool
    rows_max: int
    lane: Lane | None


class EmbedRun(OnePiece):
    """A request of many texts has a batch or two in the lane at a time, so that others get their turn between them."""

    __slots__ = ("_embedder", "_replica")

    def __init__(
        self,
        fleet: Fleet,
        replica: Embeds,
        embedder: Embedder,
        request: InferenceRequest,
        threads: StepThreads,
        policy: StepPolicy,
    ) -> None:
        super().__init__(fleet, request, threads, policy)
        self._replica = replica
        self._embedder = embedder

    def _check(self) -> None:
        """Raises `NotOffered`, `WrongValue`."""
        work = self._request.work
        if isinstance(work, Embed):
            self._embedder.check_dimensions(work.dimensions)
            count, most = len(work.texts) + len(work.tokens), self._policy.texts_max
            if not 0 < count <= most:
                raise WrongValue(f"{count} texts were sent, 1 to {most} are allowed (--embed-texts-max)", param="input")
        elif not isinstance(work, Tokenise) or work.messages:
            raise NotOffered(f"model {self._replica.name!r} embeds text; it does not generate it, nor does it chat")

    async def _answer(self) -> Piece:
        work = self._request.work
        if isinstance(work, Embed):
            return await self._embedded(work)
        assert isinstance(work, Tokenise)  # noqa: S101 - else `_check` had refused it
        return await self._tokenised(work)

    async def _embedded(self, work: Embed) -> Piece:
        """Usage counts what the model read: the tokens that begin and end a text too."""
        embedder, request, replica = self._embedder, self._request, self._replica
        timely = partial(self._threads.timely, request.deadline)
        rows: list[Sequence[int]] = []
        if work.texts:
            rows += await timely(embedder.encoded, work.texts)
        rows += embedder.checked(work.tokens)
        lengths = [len(row) for row in rows]
        together = groups(lengths, replica.rows_max if replica.batched else 1, embedder.wish.batch_tokens)
        at_once = min(self._policy.at_once, 1 + (replica.lane.instances if replica.lane else 1))
        calls = [partial(self._vectors, [rows[place] for place in group], work.dimensions) for group in together]
        found = await gather(calls, at_once)
        vectors = np.empty((len(rows), found[0].shape[1]), np.float32)
        for group, part in zip(together, found, strict=True):
            vectors[group] = part
        return Piece({EMBEDDING: vectors}, Usage(1, len(rows), prompt_tokens=sum(lengths)))

    async def _vectors(self, rows: Sequence[Sequence[int]], dimensions: int) -> Array:
        embedder = self._embedder
        output = embedder.output.name
        answer = await ask(self._fleet, self._replica, embedder.tensors(rows), (output,), self._request)
        return embedder.vectors(answer[output], [len(row) for row in rows], dimensions)

    async def _tokenised(self, work: Tokenise) -> Piece:
        embedder, timely = self._embedder, partial(self._threads.timely, self._request.deadline)
        if work.tokens:
            text = await timely(embedder.text, work.tokens, work.special)
            return Piece({}, Usage(prompt_tokens=len(work.tokens)), (Delta(0, text, finish="stop"),))
        tokens = await timely(embedder.tokens, work.text, work.special)
        return Piece({TOKENS: tokens}, Usage(prompt_tokens=len(tokens)))
