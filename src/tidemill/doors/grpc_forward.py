"""gRPC calls that no front answers, passed on whole: `Forward` at the front, `answer` at the owner of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeAlias

import grpc

from tidemill.core.errors import TidemillError
from tidemill.doors import problems
from tidemill.wire.frames import Frame
from tidemill.wire.messages import GrpcReply, GrpcRequest, Topic, encode, read_grpc_reply, read_grpc_request
from tidemill.wire.peer import Asked, Peer

GRPC = int(Topic.GRPC)
HERE = frozenset({"ModelInfer", "Predict", "Classify", "Regress"})
"""Methods whose messages are read and worded at the front; and all that stream. Not MultiInference: what asks two
signatures is one request to the owner's limits, and would be two over the link."""

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
Handlers: TypeAlias = Sequence[grpc.GenericRpcHandler]
STATUSES = {status.value[0]: status for status in grpc.StatusCode}


class Details(grpc.HandlerCallDetails):  # type: ignore[misc]  # grpc ships no types
    """What a handler is looked up by."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata: Metadata = ()


class Forward(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Stands before `methods`: keeps inference here, has the rest answered at the other side of `peer`."""

    def __init__(self, methods: Handlers, peer: Peer) -> None:
        self._methods = methods
        self._peer = peer
        self._chosen: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        chosen = self._chosen.get(method)
        if chosen is None:
            found = found_in(self._methods, method)
            if found is None:
                return None  # unknown names are not remembered: there is no end of them
            streams = found.request_streaming or found.response_streaming
            here = streams or method.rpartition("/")[2] in HERE
            chosen = self._chosen[method] = found if here else self._onward(method)
        return chosen

    def _onward(self, method: str) -> grpc.RpcMethodHandler:
        async def handle(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            try:
                reply, message = await self._passed_on(method, body, context)
            except TidemillError as error:
                trailing = (("tidemill-code", error.code),)
                await context.abort(problems.grpc_status(error), error.message[:1000], trailing)
                return b""
            if reply.status:
                await context.abort(STATUSES[reply.status], reply.details, reply.trailing)
            if reply.trailing:
                context.set_trailing_metadata(reply.trailing)
            return message

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _passed_on(self, method: str, body: bytes, context: Any) -> tuple[GrpcReply, bytes]:
        remaining = context.time_remaining()
        metadata = tuple((key, value) for key, value in context.invocation_metadata() or ())
        asked = GrpcRequest(method, metadata, None if remaining is None else float(remaining))
        question = self._peer.ask(GRPC, encode(asked), (body,), len(body))
        try:
            frame = await question.next()
        finally:
            question.close()
        return read_grpc_reply(frame.header), frame.payload()


def found_in(methods: Iterable[grpc.GenericRpcHandler], method: str) -> grpc.RpcMethodHandler | None:
    """The handler of `method`, None for one that nobody offers."""
    details = Details(method)
    for each in methods:
        if (found := each.service(details)) is not None:
            return found
    return None


class Aborted(Exception):
    """What `abort` of a forwarded call raises."""


class Context:
    """As much of gRPC's context as our methods use, for a call that came over a link."""

    def __init__(self, request: GrpcRequest) -> None:
        self._request = request
        self.status = 0
        self.details = ""
        self.trailing: Metadata = ()

    def invocation_metadata(self) -> Metadata:
        return self._request.metadata

    def time_remaining(self) -> float | None:
        return self._request.remaining_s

    def set_trailing_metadata(self, trailing: Iterable[tuple[str, str | bytes]]) -> None:
        self.trailing = tuple(trailing)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        self.status, self.details, self.trailing = code.value[0], details, tuple(trailing_metadata)
        raise Aborted


async def answer(methods: Handlers, asked: Asked, frame: Frame, publish: Callable[[], None]) -> None:
    """Have one of `methods` answer a call that was passed on, and send that back after `publish` was called. Raises
    `FrameTooLarge`, `msgspec.DecodeError`."""
    request = read_grpc_request(frame.header)
    context = Context(request)
    found = found_in(methods, request.method)
    message = b""
    if found is None or found.unary_unary is None:
        context.status, context.details = grpc.StatusCode.UNIMPLEMENTED.value[0], "Method not found!"
    else:
        try:
            message = await found.unary_unary(frame.payload(), context)
        except Aborted:
            message = b""
    publish()
    asked.end(encode(GrpcReply(context.status, context.details, context.trailing)), (message,), len(message))
