"""The way of one request for words: head, identity, body, model and limits, then the work; runs on the owner's loop.

The model is named in the body, so the body, within its own small bound, is read before the model's limits are asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from tidemill.core.contracts import Served
from tidemill.core.errors import Draining, PromptTooLong, TidemillError
from tidemill.core.request import Caller, InferenceRequest
from tidemill.doors import way
from tidemill.doors.head import Head, Receive, Scope, Send, read_body
from tidemill.doors.openai import errors
from tidemill.doors.openai.asked import About, Asked, Whole, works
from tidemill.doors.openai.bounds import Limits
from tidemill.doors.openai.events import Events
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.inputs import check_length
from tidemill.doors.openai.json_body import parse
from tidemill.doors.openai.speaking import streamed, whole
from tidemill.observe import trace
from tidemill.observe.log import REQUEST_ID
from tidemill.serve.answer import Service

log = logging.getLogger(__name__)
access = logging.getLogger("tidemill.access")

SHAPE = "response_format"
"""What engines call the field that says what an answer must fit."""
NAMES = {"max_tokens": ("max_completion_tokens", "max_output_tokens"), "top_logprobs": ("logprobs",)}
"""What engines call a field -> what a body may call it instead."""
Read: TypeAlias = Callable[[Fields, Served, Limits], Asked]
Find: TypeAlias = Callable[[Scope, Fields], tuple[str, Served]]
"""(scope, body) -> the name that was asked for, and what bears it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of request. `prompt` is the field to blame for a prompt that is too long."""

    read: Read
    find: Find
    prompt: str


class Door:
    """An ASGI application for one address."""

    def __init__(self, service: Service, kind: Kind, limits: Limits, access_log: bool) -> None:
        self._service = service
        self._kind = kind
        self._limits = limits
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        span = None
        if trace.STATE.recorder is not None:
            where = {"http.request.method": scope["method"], "url.path": scope["path"]}
            span = trace.begin("generate", scope["headers"], where)
        turn = _Turn(self._service, self._kind, self._limits, started)
        try:
            async with Events(send, self._limits.keep_alive_s) as events:
                await turn.take(scope, receive, send, events)
        finally:
            if span is not None:
                told = {"http.response.status_code": turn.status, "tidemill.request_id": turn.head.request_id}
                span.end(told, turn.status >= 500)
            if self._access_log:
                spent_ms = round((time.monotonic() - started) * 1000, 3)
                line = {"method": scope["method"], "path": scope["path"], "status": turn.status, "ms": spent_ms}
                access.info("request", extra=line)


class _Turn:
    """One request; `status` is what a log says of it."""

    def __init__(self, service: Service, kind: Kind, limits: Limits, started: float) -> None:
        self._service = service
        self._kind = kind
        self._limits = limits
        self._started = started
        self._served: Served | None = None
        self._shaped_by = ""
        self._fields: Fields | None = None
        self.head = Head(REQUEST_ID.get() or way.fresh_request_id())
        self.status = 499

    async def take(self, scope: Scope, receive: Receive, send: Send, events: Events) -> None:
        path = scope["path"]
        try:
            await self._answer(scope, receive, send, events)
            self.status = 200
        except asyncio.CancelledError:
            if events.begun and not scope.get("state", {}).get("gone"):
                over = Draining("this server went down in the middle of the answer; ask another", retry_after_s=1.0)
                await events.end(errors.event_at(path, over))
            raise
        except TidemillError as error:
            if isinstance(error, PromptTooLong) and error.param is None:
                error.param = self._kind.prompt
            if error.param == SHAPE and self._shaped_by:
                error.param = self._shaped_by
            error.param = self._named(error.param)
            self._service.failed(self._served, error.code)
            await self._refuse(path, error, send, events)
        except Exception:
            log.exception("a request failed in a way that was not foreseen")
            self._service.failed(self._served, TidemillError.code)
            told = f"this server failed; its log tells more under {self.head.request_id}"
            await self._refuse(path, TidemillError(told), send, events)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, events: Events) -> None:
        head, service, limits = self.head, self._service, self._limits
        head.read(scope["headers"], limits.body_bytes_max)
        caller = service.identity.recognise(head.credential)
        body = await read_body(receive, limits.body_bytes_max)
        fields = Fields(parse(body), lax=limits.lax)
        self._fields = fields
        model, served = self._kind.find(scope, fields)
        self._served = served
        service.gate.limit(caller, served)
        asked = self._kind.read(fields, served, limits)
        self._shaped_by = asked.shaped_by
        for work in asked.works:
            check_length(work, served.speaks)
        requests = self._requests(caller, served, asked, body, way.alias_of(service.fleet, model))
        about = About(model, head.request_id, int(time.time()), served)
        if asked.stream:
            events.keep_alive()
            last = await streamed(service, caller, requests, asked.teller(about), events.put)
            await events.end(last)
            return

        def word(told: list[Whole]) -> bytes:
            return orjson.dumps(asked.whole(about, told), option=orjson.OPT_SERIALIZE_NUMPY)

        words = await whole(service, caller, requests, word)
        await _send(send, 200, [(b"content-type", b"application/json")], words)

    def _named(self, param: str | None) -> str | None:
        """The field that `param` stands for, as the body has it."""
        given = {} if self._fields is None else self._fields.values
        if param is None or given.get(param) is not None:
            return param
        return next((name for name in NAMES.get(param, ()) if given.get(name) is not None), param)

    def _requests(
        self, caller: Caller, served: Served, asked: Asked, body: bytes, alias: str
    ) -> Sequence[InferenceRequest]:
        """One for each piece of work, each with a charge of its own."""
        head = self.head
        until = way.deadline(head.timeout_s, self._limits.timeout_s, self._started)
        made = []
        for index, work in enumerate(works(asked)):
            more = f"-{index}" if index else ""
            given = f"{head.given_id}{more}" if head.given_id else ""
            request_id = f"{head.request_id}{more}"
            made.append(way.inference_request(caller, served, work, given, request_id, body, until, alias))
        return made

    async def _refuse(self, path: str, error: TidemillError, send: Send, events: Events) -> None:
        status, headers, body = errors.reply_at(path, error)
        self.status = status
        events.fall_silent()
        if events.begun:
            await events.end(errors.event_at(path, error))
        else:
            await _send(send, status, headers, body)


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
