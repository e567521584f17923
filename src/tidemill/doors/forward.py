"""Requests off the hot routes, passed on whole: `Forward` at the front, `answer` at the process that owns the service.

Small and seldom: the admin API, metrics, metadata, health. Bodies are held whole on both sides, within their bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec

from tidemill.core.contracts import Identity
from tidemill.core.errors import LinkLost, TidemillError
from tidemill.doors import problems
from tidemill.doors.head import ASGIApp, Head, Receive, Scope, Send, read_body
from tidemill.doors.way import fresh_request_id
from tidemill.observe.log import REQUEST_ID
from tidemill.wire.frames import Frame
from tidemill.wire.messages import HttpReply, HttpRequest, Topic, encode, read_http_reply, read_http_request
from tidemill.wire.peer import Asked, Peer

log = logging.getLogger(__name__)

HTTP = int(Topic.HTTP)
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
        try:
            reply, body = await self._passed_on(scope, receive)
            status, headers = reply.status, list(reply.headers)
        except TidemillError as error:
            status, headers, body = problems.reply(error)
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _passed_on(self, scope: Scope, receive: Receive) -> tuple[HttpReply, bytes]:
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
        question = self._peer.ask(HTTP, encode(asked), (body,), len(body))
        try:
            frame = await question.next()
        finally:
            question.close()
        try:
            reply = read_http_reply(frame.header)
        except msgspec.DecodeError as error:
            raise LinkLost(f"the answer of the process that owns this service cannot be read: {error}") from error
        return reply, frame.payload()


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
    status = 500
    headers: list[tuple[bytes, bytes]] = []
    parts: list[bytes] = []
    messages = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def receive() -> MutableMapping[str, Any]:
        for message in messages:
            return message
        await asyncio.get_running_loop().create_future()  # a caller that went away cancels this task
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.extend((bytes(name), bytes(value)) for name, value in message["headers"])
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception:
        if not headers:
            raise
        log.debug("after its answer a forwarded request raised", exc_info=True)  # what the framework does by design
    content = b"".join(parts)
    publish()
    asked.end(encode(HttpReply(status, tuple(headers))), (content,), len(content))
