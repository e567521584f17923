"""The hot routes: predict and infer over REST, on raw ASGI; everything else goes on to the framework behind.

Runs on the owner's loop. The order is the request's way: head, model, identity and limits, and only then the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import msgspec

from tidemill.core.contracts import Served
from tidemill.core.errors import Draining, MalformedRequest, MethodNotAllowed, RequestCancelled, TidemillError
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature, Tensors
from tidemill.doors import kserve, problems, raw, tfserving, way
from tidemill.doors.head import ASGIApp, Head, Receive, Scope, Send, check_commas, check_values, read_body, too_large
from tidemill.doors.listen import Connection
from tidemill.doors.openai import errors
from tidemill.observe import trace
from tidemill.observe.log import REQUEST_ID
from tidemill.serve.answer import Service

log = logging.getLogger(__name__)
access = logging.getLogger("tidemill.access")

Reply: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers without content-length, body."""

_HOT = re.compile(
    r"/(?:v2/models/(?P<kserve>[^/:]+)(?:/versions/(?P<kserve_version>[^/:]+))?/infer"
    r"|v1/models/(?P<tf>[^/:]+)(?:/versions/(?P<tf_version>[^/:]+)|/labels/(?P<tf_label>[^/:]+))?"
    rf":(?P<tf_verb>{'|'.join(tfserving.DIALECTS)}))"
)
ALLOW = (b"allow", b"POST")
ROUTES_REMEMBERED = 4096


class Dialect(Protocol):
    """How one REST dialect reads an inference request and words its answer; its functions are pure."""

    def question(self, signature: Signature, body: bytes, head: Head) -> Any:
        """An object with `work: Predict` and `timeout_s: float | None`. Raises the errors of the branch
        `CallerError`."""

    def answer(self, served: Served, asked: Any, tensors: Tensors) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers (content-type among them, content-length not) and body. `asked` is what `question` gave."""


class Route(msgspec.Struct, frozen=True):
    """Where a path leads; without `version` and `label`, to the newest."""

    dialect: Dialect
    model: str
    version: str | None
    label: str | None = None


@lru_cache(ROUTES_REMEMBERED)
def route_of(path: str) -> Route | None:
    """The hot route of `path`, None when it is none."""
    found = _HOT.fullmatch(path)
    if found is None:
        return None
    if found["kserve"] is not None:
        return Route(kserve.DIALECT, found["kserve"], found["kserve_version"])
    return Route(tfserving.DIALECTS[found["tf_verb"]], found["tf"], found["tf_version"], found["tf_label"])


def named(scope: Scope, send: Send) -> Send:
    """`send` for a request that the framework answers: under the caller's id, or one of ours where that is none."""
    if scope["type"] != "http":
        return send
    request_id = ""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            with contextlib.suppress(MalformedRequest):  # those who need a head of the request refuse it by that
                request_id = way.checked_request_id(value.decode("latin-1"))
    request_id = request_id or way.fresh_request_id()
    REQUEST_ID.set(request_id)

    async def send_named(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if all(name != b"x-request-id" for name, _ in headers):  # what is tried was named on the hot route
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
        await send(message)

    return send_named


class Doors:
    """The ASGI application: hot routes here, the rest to `others`."""

    def __init__(self, service: Service, others: ASGIApp, settings: Settings) -> None:
        self._service = service
        self._others = others
        self._body_bytes_max = settings.body_bytes_max
        self._values_max = settings.values_max
        self._request_timeout_s = settings.request_timeout_ms / 1000
        self._access_log = settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["path"]) if scope["type"] == "http" else None
        try:
            if route is None:
                await self._others(scope, receive, named(scope, send))
            else:
                await self._answer(route, scope, receive, send)
        except asyncio.CancelledError:
            connection: Connection | None = scope.get("tidemill.connection")
            if connection is None:
                raise
            if scope["state"].get("gone"):
                self._service.failed(None, RequestCancelled.code)
            else:  # the drain ran out
                over = Draining("this server went down before the answer was ready; ask another", retry_after_s=1.0)
                self._service.failed(None, over.code)
                status, headers, reply = errors.reply_at(scope["path"], over)
                headers.append((b"x-request-id", REQUEST_ID.get().encode()))
                if not connection.reply_now(status, headers, reply):
                    connection.transport.close()

    async def predict(self, model: str, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that came to another address as `:predict` of `model` would have, the whole way."""
        await self._answer(Route(tfserving.PREDICT, model, version), scope, receive, send)

    async def _answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        request_id = way.fresh_request_id()
        REQUEST_ID.set(request_id)
        head = Head(request_id)
        status = 499  # what a log says of a caller that went away
        span = None
        if trace.STATE.recorder is not None:
            where = {"http.request.method": scope["method"], "url.path": scope["path"]}
            span = trace.begin("infer", scope["headers"], where)
        try:
            status, headers, reply = await self._reply(route, head, scope, receive, started)
            headers.append((b"x-request-id", head.request_id.encode()))
            connection: Connection | None = scope.get("tidemill.connection")
            if connection is None or not connection.reply_now(status, headers, reply):
                headers.append((b"content-length", b"%d" % len(reply)))
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": reply})
        finally:
            if span is not None:
                span.end({"http.response.status_code": status, "tidemill.request_id": head.request_id}, status >= 500)
            if self._access_log:
                spent_ms = round((time.monotonic() - started) * 1000, 3)
                told = {"method": scope["method"], "path": scope["path"], "status": status, "ms": spent_ms}
                access.info("request", extra=told)

    async def _reply(self, route: Route, head: Head, scope: Scope, receive: Receive, started: float) -> Reply:
        service = self._service
        served: Served | None = None
        try:
            head.read(scope["headers"], self._body_bytes_max)
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['method']} is not taken here, POST is")
            caller = service.identity.recognise(head.credential)
            served = service.fleet.find(route.model, way.version_of(route.model, route.version), route.label)
            service.gate.limit(caller, served)
            way.check_tensors(served)
            dialect = route.dialect
            if head.content_type and dialect is tfserving.PREDICT and raw.wanted(served, head.content_type):
                dialect = raw.RawDialect(served)
            connection: Connection | None = scope.get("tidemill.connection")
            body = connection.body_now() if connection is not None else None
            if body is None and connection is not None:
                body = await connection.body_whole(self._body_bytes_max)
            elif body is None:
                body = await read_body(receive, self._body_bytes_max)
            elif len(body) > self._body_bytes_max:
                raise too_large(len(body), self._body_bytes_max)
            many = len(body) > self._values_max  # a value takes a byte at least
            if many:
                check_commas(body, head.json_length, self._values_max)
            asked = dialect.question(served.signature, body, head)
            if many:
                check_values(asked.work.inputs, self._values_max)
            until = way.deadline(asked.timeout_s or head.timeout_s, self._request_timeout_s, started)
            request = way.inference_request(caller, served, asked.work, head.given_id, head.request_id, body, until)
            async with service.open(caller, request) as pieces:
                piece = await anext(pieces)
                headers, reply = dialect.answer(served, asked, piece.tensors)
            return 200, headers, reply
        except TidemillError as error:
            service.failed(served, error.code)
            status, headers, reply = problems.reply(error)
            return status, [*headers, ALLOW] if isinstance(error, MethodNotAllowed) else headers, reply
        except Exception:
            log.exception("a request failed in a way that was not foreseen")
            service.failed(served, TidemillError.code)
            return problems.reply(TidemillError(f"this server failed; its log tells more under {head.request_id}"))
