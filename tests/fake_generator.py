"""A small true language model, for tests that need words without an engine: its tokens are bytes, its words a dozen."""

from __future__ import annotations

import asyncio
import codecs
import json
import random
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from tidemill.core.contracts import Pieces
from tidemill.core.errors import DeadlineExceeded, EngineFailed, ModelNotReady, NotOffered, PromptTooLong, WrongValue
from tidemill.core.generation import Delta, Finish, Generate, Sampling, Speaks, Tokenise
from tidemill.core.request import InferenceRequest, Piece, Usage

WORDS = ("the", "mill", "turns", "where", "a", "river", "meets", "la", "mer", "größte", "潮水", "🌊")
SENTENCE_WORDS = 12
END = 256
"""The token that ends an answer; all others are bytes."""
CONTEXT_TOKENS = 4096


class FakeGenerator:
    """Says what `says` returns for a request, and else words of its list, chosen by prompt and seed.

    `running` counts the answers under way, `steps` the rounds in which each got a token. While `held` is set and not
    over, no token comes to an answer that has `held_after`. `breaks_after` fails an answer after so many tokens.
    """

    speaks = Speaks(context_tokens=CONTEXT_TOKENS, vocabulary=END + 1, chats=True)

    def __init__(self, says: Callable[[Generate], str] | None = None) -> None:
        self._says = says
        self.running = 0
        self.steps = 0
        self.held: asyncio.Event | None = None
        self.held_after = 0
        self.breaks_after: int | None = None
        self.asked: list[Generate | Tokenise] = []
        self._closed = asyncio.Event()

    @asynccontextmanager
    async def run(self, request: InferenceRequest) -> AsyncIterator[Pieces]:
        self.running += 1
        try:
            yield self._pieces(request)
        finally:
            self.running -= 1

    async def close(self) -> None:
        self._closed.set()

    async def _pieces(self, request: InferenceRequest) -> Pieces:
        work = request.work
        if isinstance(work, Tokenise):
            self.asked.append(work)
            yield _tokenised(work)
            return
        if not isinstance(work, Generate):
            raise NotOffered("this model speaks; it takes no tensors and embeds nothing")
        self.asked.append(work)
        if self._closed.is_set():
            raise ModelNotReady("this model is being closed")
        prompt = prompt_of(work)
        room = CONTEXT_TOKENS - len(prompt)
        wanted = work.sampling.max_tokens
        if room <= 0 or wanted > room:
            raise PromptTooLong(
                f"{len(prompt)} tokens of prompt and {wanted} more exceed {CONTEXT_TOKENS}",
                param="max_tokens" if room > 0 else None,
            )
        if work.sampling.logprobs:
            raise NotOffered("this model tells the logprob of the chosen token alone", param="top_logprobs")
        choices = [
            _Choice(index, self._answer(work, prompt, index), work.sampling, room) for index in range(work.choices)
        ]
        drawn = 0
        while any(not each.finish for each in choices):
            await self._step(request.deadline, drawn)
            if self.breaks_after is not None and drawn >= self.breaks_after:
                raise EngineFailed("the engine broke in the middle of an answer")
            deltas = tuple(delta for each in choices if not each.finish for delta in each.step())
            drawn += 1
            if any(not each.finish for each in choices):
                yield Piece({}, None, deltas)
        total = sum(each.count for each in choices)
        yield Piece({}, Usage(prompt_tokens=len(prompt), completion_tokens=total), deltas)

    async def _step(self, deadline: float, drawn: int) -> None:
        self.steps += 1
        await asyncio.sleep(0)
        if self.held is not None and drawn >= self.held_after:
            held, closed = (asyncio.ensure_future(each.wait()) for each in (self.held, self._closed))
            try:
                await asyncio.wait([held, closed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                held.cancel()
                closed.cancel()
        if self._closed.is_set():
            raise ModelNotReady("this model is being closed")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the deadline passed before the answer was whole")

    def _answer(self, work: Generate, prompt: bytes, index: int) -> Iterator[int]:
        if self._says is not None:
            return iter((*self._says(work).encode(), END))
        if work.constraint is not None:
            if work.constraint.kind not in ("json", "json_schema"):
                raise NotOffered(f"this model follows no {work.constraint.kind}")
            schema = json.loads(work.constraint.text) if work.constraint.text else {"type": "object"}
            return iter((*json.dumps(an_instance(schema)).encode(), END))
        return _words(prompt, work.sampling, index)


class _Choice:
    """One answer, byte by byte: whole characters leave, and what may become a stop string stays."""

    def __init__(self, index: int, answer: Iterator[int], sampling: Sampling, room: int) -> None:
        self._index = index
        self._answer = answer
        self._sampling = sampling
        self._most = sampling.max_tokens or room
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._text = ""
        self._tokens: list[int] = []
        self.count = 0
        self.finish: Finish = ""

    def step(self) -> Iterator[Delta]:
        token = next(self._answer)
        self.count += 1
        if token == END:
            yield self._end("stop", self._text)
            return
        self._tokens.append(token)
        self._text += self._decoder.decode(bytes((token,)))
        found = [at for stop in self._sampling.stop if (at := self._text.find(stop)) >= 0]
        if found:
            yield self._end("stop", self._text[: min(found)])
        elif self.count >= self._most:
            yield self._end("length", self._text)
        else:
            free = len(self._text) - _may_become(self._text, self._sampling.stop)
            if free:
                told, self._text = self._text[:free], self._text[free:]
                yield self._delta(told, "")

    def _end(self, finish: Finish, text: str) -> Delta:
        self.finish = finish
        return self._delta(text, finish)

    def _delta(self, text: str, finish: Finish) -> Delta:
        tokens, self._tokens = tuple(self._tokens), []
        if self._sampling.logprobs is None:
            return Delta(self._index, text, tokens, finish=finish)
        spelled = tuple(bytes((token,)).decode("utf-8", "replace") for token in tokens)
        return Delta(self._index, text, tokens, (-0.5,) * len(tokens), spelled, finish=finish)


def _may_become(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` begin one of `stops`."""
    return max(
        (size for stop in stops for size in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:size])),
        default=0,
    )


def _words(prompt: bytes, sampling: Sampling, index: int) -> Iterator[int]:
    drawn = 0 if sampling.temperature == 0 else sampling.seed
    drawn = random.getrandbits(32) if drawn is None else drawn
    chooser = random.Random(f"{zlib.crc32(prompt)} {drawn} {index}")  # noqa: S311 - words, no secrets
    count = 0
    while True:
        yield from (" " * (count > 0) + chooser.choice(WORDS)).encode()
        count += 1
        if count == SENTENCE_WORDS and not sampling.ignore_eos:
            yield END


def prompt_of(work: Generate | Tokenise) -> bytes:
    """What the model is given: the messages in its own template, or the prompt as it is."""
    if work.tokens:
        return bytes(token for token in work.tokens if token != END)
    if work.messages:
        told = "".join(f"<{each['role']}>{each.get('content') or ''}\n" for each in work.messages)
        tools = json.dumps([each["function"]["name"] for each in work.tools]) + "\n" if work.tools else ""
        return f"{tools}{told}<assistant>".encode()
    return (work.prompt if isinstance(work, Generate) else work.text).encode()


def _tokenised(work: Tokenise) -> Piece:
    usage = Usage(prompt_tokens=len(work.tokens) or len(prompt_of(work)))
    if work.tokens:
        if any(not 0 <= token <= END for token in work.tokens):
            raise WrongValue(f"tokens are 0 to {END}")
        text = bytes(token for token in work.tokens if token != END).decode("utf-8", "replace")
        return Piece({}, usage, (Delta(0, text, finish="stop"),))
    return Piece({"tokens": np.frombuffer(prompt_of(work), np.uint8).astype(np.int64)}, usage)


def an_instance(schema: Any) -> Any:
    """The smallest value that fits a schema of the plain kind."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return an_instance(schema[key][0])
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: an_instance(each) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [an_instance(schema["items"])] * schema.get("minItems", 0)
    return {"string": "mill", "integer": 7, "number": 0.5, "boolean": True, "null": None}[kind]
