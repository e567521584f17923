"""Requests off the hot routes, passed on whole: `Forward` at the front, `answer` at the process that owns the service.

The admin API, metrics, metadata, health, and what language models are asked. Bodies are held whole on both sides,
within their bounds, but for answers that are streamed: these pass part by part, and the owner is never further ahead of
the caller than `AHEAD_MAX` parts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import msgspec

from tidemill.core.contracts import Identity
from tidemill.core.errors import Draining, FrameTooLarge, LinkLost, ServiceError, TidemillError
from tidemill.doors.head import ASGIApp, Head, Receive, Scope, Send, read_body
from tidemill.doors.openai import errors
from tidemill.doors.way import fresh_request_id
from tidemill.observe.log import REQUEST_ID
from tidemill.wire.frames import Frame, Kind
from tidemill.wire.messages import HttpReply, HttpRequest, Topic, encode, read_http_reply, read_http_request
from tidemill.wire.peer import Asked, Peer, Question

log = logging.getLogger(__name__)

HTTP = int(Topic.HTTP)
LAST = int(Kind.LAST)
AHEAD_MAX: Final = 64
"""Parts of a streamed answer that the owner sends before it hears that the caller took some."""
TOLD_EACH: Final = 16
"""Parts after which a front says that the caller took them."""
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"expect"})
"""Headers that are about one connection (RFC 9110, 7.6.1)."""


class Forward:
    """An ASGI application whose answers come from the other side of `peer`.

    Whoever sends a body is asked for a key before it is read; the rest is judged where it is answered.
    """

    def __init__(self, peer: Peer, identity: Identity, body_bytes_max: int, before: Callable[[], None]) -> None:
        """`before` is called before each request is passed on, over the same link."""
        self._peer = peer
        self._identity = identity
        self._body_bytes_max = body_bytes_max
        self._before = before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        question: Question | None = None
        try:
            question = await self._passed_on(scope, receive)
            frame = await question.next()
            reply = _reply(frame)
            if frame.kind != LAST:
                await _stream(scope, send, question, reply, frame)
                return
            status, headers, body = reply.status, list(reply.headers), frame.payload()
        except TidemillError as error:
            status, headers, body = errors.reply_at(scope["path"], error)
            headers.append((b"content-length", b"%d" % len(body)))
        finally:
            if question is not None:
                question.close()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _passed_on(self, scope: Scope, receive: Receive) -> Question:
        head = Head(fresh_request_id())
        REQUEST_ID.set(head.request_id)
        head.read(scope["headers"], self._body_bytes_max)
        if head.content_length > 0 or any(name == b"transfer-encoding" for name, _ in scope["headers"]):
            self._identity.recognise(head.credential)
        body = await read_body(receive, self._body_bytes_max)
        headers = tuple((name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP)
        client = scope.get("client")
        asked = HttpRequest(
            scope["method"],
            scope["path"],
            scope["query_string"],
            scope["scheme"],
            headers,
            (client[0], client[1]) if client else None,
        )
        self._before()
        return self._peer.ask(HTTP, encode(asked), (body,), len(body))


def _reply(frame: Frame) -> HttpReply:
    try:
        return read_http_reply(frame.header)
    except msgspec.DecodeError as error:
        raise LinkLost(f"the answer of the process that owns this service cannot be read: {error}") from error


async def _stream(scope: Scope, send: Send, question: Question, reply: HttpReply, frame: Frame) -> None:
    """Pass parts on as they come, as fast as the caller takes them. What fails now can only be told as an event."""
    await send({"type": "http.response.start", "status": reply.status, "headers": list(reply.headers)})
    passed = 0
    try:
        while frame.kind != LAST:
            await send({"type": "http.response.body", "body": frame.payload(), "more_body": True})
            passed += 1
            if passed % TOLD_EACH == 0:
                question.more()
            frame = await question.next()
        last = frame.payload()
    except TidemillError as error:
        last = errors.event_at(scope["path"], error)
    except asyncio.CancelledError:
        if not scope.get("state", {}).get("gone"):
            over = Draining("this server went down in the middle of the answer; ask another")
            last = errors.event_at(scope["path"], over)
            await send({"type": "http.response.body", "body": last, "more_body": False})
        raise
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def answer(app: ASGIApp, asked: Asked, frame: Frame, publish: Callable[[], None]) -> None:
    """Have `app` answer a request that was passed on, and send that back after `publish` was called: who hears that
    something has changed finds it so. Raises `FrameTooLarge`, `DecodeError`."""
    request = read_http_request(frame.header)
    body = frame.payload()
    scope: MutableMapping[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": None,
        "client": request.client,
        "scheme": request.scheme,
        "method": request.method,
        "root_path": "",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "headers": list(request.headers),
        "state": {},
    }
    reply = _Answer(asked, publish)
    messages = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def receive() -> MutableMapping[str, Any]:
        for message in messages:
            return message
        await asyncio.get_running_loop().create_future()  # a caller that went away cancels this task
        raise AssertionError

    try:
        await app(scope, receive, reply.send)
    except Exception:
        if not reply.over:
            raise
        log.debug("after its answer a forwarded request raised", exc_info=True)  # what the framework does by design
    if not reply.over:
        raise ServiceError("this server began an answer that it did not end")


class _Answer:
    """What the application sends, on its way to the front: whole, or part by part where it comes in parts."""

    def __init__(self, asked: Asked, publish: Callable[[], None]) -> None:
        self.over = False
        self._asked = asked
        self._publish = publish
        self._head = b""
        self._ahead = 0
        self._streams = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Raises `LinkLost`; for a part `FrameTooLarge`."""
        if message["type"] == "http.response.start":
            headers = tuple((bytes(name), bytes(value)) for name, value in message["headers"])
            self._head = encode(HttpReply(message["status"], headers))
            return
        if message["type"] != "http.response.body" or self.over:
            return
        body = message.get("body", b"")
        if not self._streams:
            self._publish()
        if message.get("more_body", False):
            await self._part(body)
        else:
            self.over = True
            try:
                self._asked.end(b"" if self._streams else self._head, (body,), len(body))
            except FrameTooLarge as error:
                self._asked.fail(error)

    async def _part(self, body: bytes) -> None:
        asked = self._asked
        if self._ahead >= AHEAD_MAX:
            await asked.next()
            self._ahead -= TOLD_EACH
        if asked.paused:
            await asked.writable()
        asked.piece(b"" if self._streams else self._head, (body,), len(body))
        self._streams = True
        self._ahead += 1
