"""What every gRPC method shares: head, identity, body, and errors as status; runs on the owner's loop.

Methods take and give bytes, so that identity and limits are judged on the metadata before anything of the body is
parsed. gRPC itself holds a message until it is whole, within its own bounds (`grpc_server.options`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from tidemill.core.contracts import Served
from tidemill.core.errors import MalformedRequest, Overloaded, ServiceError, TidemillError
from tidemill.core.request import ANONYMOUS, Caller, InferenceRequest, Predict
from tidemill.core.settings import Settings
from tidemill.core.tensor import Tensors
from tidemill.doors import problems, way
from tidemill.doors.frames import Frame
from tidemill.doors.head import check_values
from tidemill.observe import trace
from tidemill.observe.log import REQUEST_ID
from tidemill.serve.answer import Service

LOG = logging.getLogger(__name__)
access = logging.getLogger("tidemill.access")
PATHS: weakref.WeakKeyDictionary[Callable[..., Any], str] = weakref.WeakKeyDictionary()
"""What is called for a method, of one message or of a stream of them -> its `/service/method`."""

DETAILS_BYTES_MAX = 2000
"""Escaped, one byte takes up to three; clients refuse more than 8 KiB of trailing metadata."""
RETRY_AFTER_S = 1.0


class Call:
    """One call under way: who asks, under which ids, until when, what, and of which model once that is known."""

    __slots__ = ("body", "caller", "credential", "given_id", "request_id", "served", "until")

    def __init__(self) -> None:
        self.request_id = ""
        self.given_id = ""
        self.credential = ""
        self.until = 0.0
        self.caller: Caller = ANONYMOUS
        self.body = b""
        self.served: Served | None = None

    def hasten(self, timeout_s: float | None) -> None:
        """Bring the deadline forward to `timeout_s` from now; never back."""
        if timeout_s is not None:
            self.until = min(self.until, time.monotonic() + timeout_s)


Method: TypeAlias = Callable[[Call], Awaitable[bytes]]
"""The call with its body in, the encoded reply out. Raises what is wrong from the tree of errors."""


class Calls:
    """Runs methods for all dialects of one server, and counts what is under way. `end` ends the streams."""

    def __init__(self, service: Service, settings: Settings, is_ready: Callable[[], bool]) -> None:
        self.service = service
        self.settings = settings
        self.is_ready = is_ready
        self.body_bytes_max = settings.body_bytes_max
        self.timeout_s = settings.request_timeout_ms / 1000
        self.in_flight = 0
        self.ending = asyncio.Event()
        self._in_flight_max = settings.connections_max
        self._values_max = settings.values_max
        self._access_log = settings.access_log

    def end(self) -> None:
        """Let streams end: they have no end of their own, and would hold up a server that is going down."""
        self.ending.set()

    def handler(
        self, method: Method, *, keyless: bool = False, admin: bool = False, infers: bool = False
    ) -> grpc.RpcMethodHandler:
        """`method` as gRPC wants it. A `keyless` one answers whoever asks, an `admin` one those with an admin key; one
        that `infers` is traced."""

        async def handle(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            call = Call()
            refused: TidemillError | None = None
            reply = b""
            ended = False
            began = self.began()
            self.in_flight += 1
            span = begin_span(context) if infers else None
            try:
                self.read_head(call, context)
                if not keyless:
                    call.caller = self.service.identity.recognise(call.credential)
                if admin:
                    way.check_admin(call.caller)
                call.body = body
                reply = await method(call)
                ended = True
            except grpc.aio.BaseError:  # gRPC's own word that the call has ended
                raise
            except Exception as error:  # noqa: BLE001 - `refusal` logs what was not foreseen
                refused = self.refusal(call, error)
                ended = True
            finally:
                self.in_flight -= 1
                if span is not None:
                    end_span(span, call, refused)
                if began:
                    tell_access(handle, began, ended, refused)
            if refused is not None:
                # gRPC keeps what `abort` raises, and with its trace all that this frame holds: it holds no body then.
                body = call.body = b""
                return await refuse(context, call, refused)
            context.set_trailing_metadata((("x-request-id", call.request_id),))
            return reply

        return grpc.unary_unary_rpc_method_handler(handle)

    def began(self) -> float:
        """When a call begins of which the log will have a line; 0 where it has none."""
        return time.monotonic() if self._access_log else 0.0

    def refusal(self, call: Call, error: Exception) -> TidemillError:
        """Count `error`, which is being handled and ended `call`, and give what its caller is told."""
        if isinstance(error, TidemillError):
            self.service.failed(call.served, error.code)
            return error.with_traceback(None)
        LOG.exception("a gRPC call failed in a way that was not foreseen")
        self.service.failed(call.served, ServiceError.code)
        return ServiceError(f"this server failed; its log tells more under {call.request_id}")

    def find(self, call: Call, name: str, version: int | None, label: str | None = None) -> Served:
        """The model that `call` is about. Raises what `Fleet.find` raises."""
        served = call.served = self.service.fleet.find(name, version, label)
        return served

    async def predict(
        self,
        call: Call,
        served: Served,
        work: Predict,
        word: Callable[[Tensors], bytes],
        frame: Frame[Any] | None = None,
    ) -> bytes:
        """The outputs of `work`, which is held against the signature first, as `word` puts them: what it cannot put is
        not charged. A `frame` that held against the same signature before still does."""
        request = self._request(call, served, work, frame)
        async with self.service.open(call.caller, request) as pieces:
            piece = await anext(pieces)
            reply = word(piece.tensors)
        return reply

    async def predict_each(
        self, call: Call, served: Served, works: Sequence[Predict], word: Callable[[Sequence[Tensors]], bytes]
    ) -> bytes:
        """As `predict`, for several questions of one call, which run beside one another and are one charge."""
        requests = [self._request(call, served, work) for work in works]
        async with AsyncExitStack() as replies:
            opened = [await replies.enter_async_context(self.service.open(call.caller, each)) for each in requests]
            reply = word([(await anext(pieces)).tensors for pieces in opened])
        return reply

    def _request(self, call: Call, served: Served, work: Predict, frame: Frame[Any] | None = None) -> InferenceRequest:
        """All of one call are charged under one id, and so once."""
        signature = served.signature if not work.signature else served.signature.of(work.signature)
        if frame is None or frame.fits is not signature:
            check_values(work.inputs, self._values_max)
            signature.check(work.inputs)
            signature.check_outputs(work.outputs)
            if frame is not None:
                frame.fits = signature
        return way.inference_request(call.caller, served, work, call.given_id, call.request_id, call.body, call.until)

    def read_head(self, call: Call, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Take over what the metadata says. Raises `MalformedRequest`, `Overloaded`."""
        call.request_id = request_id = way.fresh_request_id()
        given = idempotency = ""
        for key, value in context.invocation_metadata():
            if key == "authorization":
                scheme, _, credential = value.partition(" ")
                call.credential = credential.strip() if scheme.lower() == "bearer" else ""
            elif key == "x-request-id" and value:
                given = request_id = way.checked_request_id(value)
            elif key == "idempotency-key" and value:
                idempotency = way.checked_request_id(value)
        call.request_id = request_id
        call.given_id = idempotency or given
        REQUEST_ID.set(call.request_id)
        if self.in_flight > self._in_flight_max:
            raise Overloaded(
                f"{self._in_flight_max} gRPC calls are under way, the most allowed (--connections-max); try later",
                retry_after_s=RETRY_AFTER_S,
            )
        call.until = way.deadline(context.time_remaining(), self.timeout_s)


def begin_span(context: grpc.aio.ServicerContext[bytes, bytes]) -> trace.Span | None:
    """None while nothing is traced."""
    if trace.STATE.recorder is None:
        return None
    return trace.begin("infer", context.invocation_metadata(), {"rpc.system": "grpc"})


def end_span(span: trace.Span, call: Call, refused: TidemillError | None) -> None:
    status = 0 if refused is None else problems.grpc_status(refused).value[0]
    told = {"rpc.grpc.status_code": status, "tidemill.request_id": call.request_id}
    span.end(told, isinstance(refused, ServiceError))


def tell_access(
    handle: Callable[..., Any], began: float, ended: bool, refused: TidemillError | None, **more: int
) -> None:
    """A line of the log for the call of `handle` that is over; one that is not `ended` was given up by its caller."""
    status = "OK" if ended else "CANCELLED"
    if refused is not None:
        status = problems.grpc_status(refused).name
    spent_ms = round((time.monotonic() - began) * 1000, 3)
    told = {"method": "gRPC", "path": PATHS.get(handle, ""), "status": status, "ms": spent_ms, **more}
    access.info("request", extra=told)


def parsed(message_class: Any, body: bytes) -> Any:
    """Raises `MalformedRequest`."""
    try:
        return message_class.FromString(body)
    except DecodeError as error:
        name = message_class.DESCRIPTOR.full_name
        raise MalformedRequest(f"the message is no {name}: {error}") from error


def service_handler(name: str, methods: Iterable[tuple[str, grpc.RpcMethodHandler]]) -> grpc.GenericRpcHandler:
    """The methods of one gRPC service."""
    return ServiceMethods(name, dict(methods))


class ServiceMethods(grpc.ServiceRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """The methods of one gRPC service, which tells their paths too."""

    def __init__(self, name: str, methods: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._name = name
        self._methods = {f"/{name}/{method}": handler for method, handler in methods.items()}
        called = ((each.unary_unary or each.stream_stream, path) for path, each in self._methods.items())
        PATHS.update({handle: path for handle, path in called if handle is not None})

    @property
    def paths(self) -> tuple[str, ...]:
        """`/service/method` of each."""
        return tuple(self._methods)

    def service_name(self) -> str:
        return self._name

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(handler_call_details.method)


def name_of(handler: grpc.GenericRpcHandler) -> str:
    """The service that a `service_handler` is of."""
    return str(handler.service_name())


async def refuse(context: grpc.aio.ServicerContext[bytes, bytes], call: Call, error: TidemillError) -> bytes:
    """Never returns: gRPC's `abort` raises."""
    trailing = [("tidemill-code", error.code), ("x-request-id", call.request_id)]
    if error.retry_after_s is not None:
        pushback_s = error.retry_after_s * random.uniform(1.0, 2.0)  # noqa: S311 - spreads clients, no secret
        trailing.append(("grpc-retry-pushback-ms", str(int(pushback_s * 1000))))
    details = error.message.encode("utf-8", "replace")[:DETAILS_BYTES_MAX].decode("utf-8", "ignore")
    await context.abort(problems.grpc_status(error), details, tuple(trailing))
    return b""
