"""A model that other servers answer for: `Generator`, and more where its upstreams do more; on the owner's loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from tidemill.core.contracts import UpstreamCounts
from tidemill.core.errors import CallerError, DeadlineExceeded, ModelNotReady, NotOffered, UpstreamFailed, WrongValue
from tidemill.core.generation import Delta, Embed, Generate, Speaks, Tokenise
from tidemill.core.package import Remote
from tidemill.core.request import InferenceRequest, Piece, Predict, Usage
from tidemill.core.tensor import Signature, Tensors, rows
from tidemill.engine.remote import openai, tfs, v2
from tidemill.engine.remote.counting import Counting
from tidemill.engine.remote.http import Asking
from tidemill.engine.remote.place import Place
from tidemill.engine.remote.upstreams import Reply, Upstreams
from tidemill.engine.remote.words import Said, recounted

log = logging.getLogger(__name__)


class RemoteModel:
    """Life: built by `load`, `run` any number of times, `close` once, which ends what runs."""

    def __init__(
        self,
        name: str,
        wish: Remote,
        upstreams: Upstreams,
        counting: Counting,
        speaks: Speaks | None,
        signature: Signature,
    ) -> None:
        self.name = name
        self.wish = wish
        self.speaks = speaks
        self.signature = signature
        self.embeds = wish.protocol == "openai" and wish.embeds
        self.asked = upstreams
        self.places = upstreams.places
        self.counting = counting
        self.recounted = False
        self.runs: set[RemoteRun] = set()
        self._watching = asyncio.get_running_loop().create_task(upstreams.watch())

    def upstreams(self) -> list[UpstreamCounts]:
        """As `Relays.upstreams`."""
        standings = [place.standing for place in self.places]
        return [UpstreamCounts(each.asked_count, each.failed_count, not each.paused_until) for each in standings]

    @property
    def under_way(self) -> int:
        return len(self.runs)

    def run(self, request: InferenceRequest) -> RemoteRun:
        return RemoteRun(self, request)

    async def close(self) -> None:
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        for run in tuple(self.runs):
            await run.end(ModelNotReady(f"model {self.name!r} is being unloaded"))
        await self.asked.close()


class RemoteRun:
    """One request, from the upstream that answers it. Leaving it closes that connection: its work ends there too."""

    def __init__(self, model: RemoteModel, request: InferenceRequest) -> None:
        self._model = model
        self._request = request
        self._reply: Reply | None = None
        self._said: Said | None = None
        self._over = False
        self._ended: Exception | None = None

    async def __aenter__(self) -> RemoteRun:
        """Raises `NotOffered`, `ModelNotReady`."""
        model, work = self._model, self._request.work
        if isinstance(work, Generate):
            offered = model.speaks is not None and (model.speaks.chats or not work.messages)
        elif isinstance(work, Embed):
            offered = model.embeds
        elif isinstance(work, Predict):
            offered = model.wish.protocol != "openai" and not work.media
        else:
            offered = model.wish.protocol == "openai" and isinstance(work, Tokenise)
        if not offered:
            raise NotOffered(f"model {model.name!r} is not one for this: see what its [remote] says of it")
        model.runs.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.runs.discard(self)
        self._over = True
        await self._let_go()

    def __aiter__(self) -> RemoteRun:
        return self

    async def __anext__(self) -> Piece:
        if self._ended is not None:
            raise self._ended
        if self._over:
            raise StopAsyncIteration
        work = self._request.work
        try:
            if isinstance(work, Generate):
                return await self._words(work)
            self._over = True
            if isinstance(work, Predict):
                return await self._tensors(work)
            if isinstance(work, Embed):
                return await self._vectors(work)
            assert isinstance(work, Tokenise)  # noqa: S101 - else `__aenter__` had refused it
            return await self._tokens(work)
        except Exception:
            if self._ended is not None:
                raise self._ended from None
            raise

    async def end(self, why: Exception) -> None:
        """Break off with `why`."""
        self._ended = why
        await self._let_go()

    async def _let_go(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            await reply.close()

    # -- words ---------------------------------------------------------------------------------------------------------

    async def _words(self, work: Generate) -> Piece:
        if self._said is None:
            self._said = said = Said(work, self._model)
            wish = self._model.wish
            self._reply, deltas = await self._ask(lambda place: openai.asking(place.model, work, wish), said.begin)
        else:
            said = self._said
            deltas = await self._timely(said)
        if not said.over:
            return Piece({}, None, deltas)
        self._over = True
        await self._let_go()
        return Piece({}, said.counted(), deltas)

    async def _timely(self, said: Said) -> tuple[Delta, ...]:
        """The next deltas. Too late for another upstream: what was said cannot be taken back."""
        reply = self._reply
        if reply is None:
            raise ModelNotReady(f"model {self._model.name!r} is being unloaded")
        try:
            async with asyncio.timeout(max(0.0, self._request.deadline - time.monotonic())):
                return await said.more(reply)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the deadline passed in the middle of the answer of {reply.place.who}") from error
        except (UpstreamFailed, httpx.TransportError) as error:
            self._model.asked.sick(reply.place, error)
            if isinstance(error, UpstreamFailed):
                raise
            raise UpstreamFailed(f"{reply.place.who} broke off in the middle of its answer") from error

    # -- all at once ---------------------------------------------------------------------------------------------------

    async def _tensors(self, work: Predict) -> Piece:
        model = self._model
        signature, wish = model.signature, model.wish

        def asked(place: Place) -> Asking:
            name = quote(place.model, safe="")
            if wish.protocol == "v2":
                return v2.asking(name, work.inputs, work.outputs, wish.binary)
            return tfs.asking(name, work.inputs, signature)

        async def begin(reply: Reply) -> Tensors:
            body = await reply.whole()
            if wish.protocol == "v2":
                found = v2.answer(body, reply.headers.get(v2.HEADER))
            else:
                found = tfs.answer(body, signature, work.outputs)
            if missing := set(work.outputs) - found.keys():
                raise UpstreamFailed(f"the upstream gave no {missing.pop()!r}")
            return found

        self._reply, tensors = await self._ask(asked, begin)
        await self._let_go()
        return Piece(tensors, Usage(1, (rows(work.inputs) if signature.batched else 1) or 1))

    async def _vectors(self, work: Embed) -> Piece:
        model = self._model
        if model.wish.dimensions and work.dimensions > model.wish.dimensions:
            told = f"{work.dimensions} dimensions are wanted; the model makes {model.wish.dimensions}"
            raise WrongValue(told, param="dimensions")
        count = len(work.texts) + len(work.tokens)
        if not count or (work.texts and work.tokens):
            raise WrongValue("texts are expected, or lists of tokens, at least one", param="input")

        async def begin(reply: Reply) -> tuple[Any, Usage | None]:
            return openai.vectors(await reply.whole(), count)

        self._reply, (vectors, told_usage) = await self._ask(lambda place: openai.embedding(place.model, work), begin)
        await self._let_go()
        prompt = told_usage.prompt_tokens if told_usage else recounted(model).prompt(work)
        return Piece({"embedding": vectors}, Usage(1, count, prompt))

    async def _tokens(self, work: Tokenise) -> Piece:
        """By the tokenizer that lies here, else by the upstream's."""
        model = self._model
        if model.counting.vocabulary or not model.wish.tokenizes:
            found = model.counting.tokenised(work)
        else:

            async def begin(reply: Reply) -> Any:
                return openai.tokenised(await reply.whole())

            try:
                self._reply, found = await self._ask(lambda place: openai.tokenising(place.model, work), begin)
            except CallerError as error:
                if error.param is None:  # an upstream seldom says; there is one field that it can mean
                    error.param = "tokens" if work.tokens else "messages" if work.messages else "prompt"
                raise
            await self._let_go()
        if isinstance(found, np.ndarray):
            return Piece({"tokens": found}, Usage(prompt_tokens=len(found)))
        return Piece({}, Usage(prompt_tokens=len(work.tokens)), (Delta(0, found, finish="stop"),))

    async def _ask(self, asked: Any, begin: Any) -> Any:
        request = self._request
        headers = {"traceparent": request.traceparent} if request.traceparent else {}
        deadline = request.deadline if math.isfinite(request.deadline) else time.monotonic() + 86_400
        return await self._model.asked.ask(asked, begin, deadline, headers)
