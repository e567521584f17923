"""The owner's end of the link to one front: judges, charges and runs what the front has read; on the owner's loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

import msgspec

from tidemill.core.contracts import Served
from tidemill.core.errors import RequestCancelled, ServiceError, TidemillError
from tidemill.core.request import Caller, InferenceRequest, Predict
from tidemill.doors import forward, grpc_forward
from tidemill.doors.head import ASGIApp
from tidemill.observe.log import REQUEST_ID
from tidemill.serve.answer import Service
from tidemill.wire.frames import Frame, FrameError
from tidemill.wire.messages import (
    Answer,
    Failures,
    Infer,
    Ready,
    Report,
    Topic,
    encode,
    read_infer,
    read_ready,
    read_report,
    read_serial,
)
from tidemill.wire.peer import Asked
from tidemill.wire.tensors import pack_tensors, unpack_tensors

log = logging.getLogger(__name__)

INFER, HTTP, GRPC = int(Topic.INFER), int(Topic.HTTP), int(Topic.GRPC)
READY, REPORT, RELEASE = int(Topic.READY), int(Topic.REPORT), int(Topic.RELEASE)


class Listener(Protocol):
    """Who hears of a front."""

    def ready(self, ready: Ready) -> None: ...

    def reported(self, report: Report) -> None: ...

    def released(self, serial: int) -> None:
        """It will not ask that one any more."""

    def served(self, name: str, version: int) -> Served:
        """What it may ask, though it may be served no more. Raises what `Fleet.find` raises."""

    def lost(self) -> None: ...


class Behind(Protocol):
    """What a link leads to; one for all fronts."""

    service: Service
    app: ASGIApp
    methods: grpc_forward.Handlers
    charging: bool

    def find(self, name: str, version: int) -> Served:
        """As `Fleet.find`."""

    def publish(self) -> None:
        """Tell every front what has changed."""

    def inside(self) -> str:
        """Where gRPC is answered in the clear under TLS, "" without."""

    def count(self, failures: Iterable[Failures]) -> None:
        """Add what a front refused, or told callers that it had failed."""


class Link:
    """`wire.peer.Handler` of the owner. A front's death cancels what it asked."""

    def __init__(self, behind: Behind, listener: Listener) -> None:
        self._behind = behind
        self._listener = listener
        self._loop = asyncio.get_running_loop()

    def asked(self, stream: Asked, frame: Frame) -> None:
        topic = frame.topic
        work: Coroutine[Any, Any, None]
        if topic == INFER:
            work = self._infer(stream, frame)
        elif topic == HTTP:
            work = self._told(stream, forward.answer(self._behind.app, stream, frame, self._behind.publish))
        elif topic == GRPC:
            work = self._told(stream, grpc_forward.answer(self._behind.methods, stream, frame, self._behind.publish))
        else:
            raise FrameError(f"a front asked about topic {topic}")
        stream.task = self._loop.create_task(work)

    def told(self, frame: Frame) -> None:
        if frame.topic == READY:
            self._listener.ready(read_ready(frame.header))
        elif frame.topic == REPORT:
            self._listener.reported(read_report(frame.header))
        elif frame.topic == RELEASE:
            self._listener.released(read_serial(frame.header))
        else:
            raise FrameError(f"a front told something about topic {frame.topic}")

    def lost(self) -> None:
        self._listener.lost()

    async def _infer(self, stream: Asked, frame: Frame) -> None:
        """The whole way of one request; its failures are counted by the front, which tells them to the caller."""
        behind = self._behind
        service = behind.service
        try:
            asked: Infer = read_infer(frame.header)
            REQUEST_ID.set(asked.request_id)
            inputs = unpack_tensors(asked.tensors, frame.data, frame.start, frame.size)
            served = self._listener.served(asked.model, asked.version)
            caller = Caller(asked.tenant, asked.key)
            service.gate.limit(caller, served)
            request = InferenceRequest(
                asked.model,
                asked.version,
                Predict(inputs, asked.outputs, asked.media, asked.signature),
                asked.request_id,
                asked.charge_id,
                time.monotonic() + asked.remaining_s,
                asked.traceparent,
            )
            async with service.open(caller, request) as pieces:
                async for piece in pieces:
                    heads, buffers, size = pack_tensors(piece.tensors)
                    if stream.paused:
                        await stream.writable()
                    usage = piece.usage
                    if usage is None:
                        stream.piece(encode(Answer(heads, 0, 0, booked=False)), buffers, size)
                        continue
                    answer = encode(
                        Answer(
                            heads,
                            usage.calls,
                            usage.rows,
                            not behind.charging,
                            usage.prompt_tokens,
                            usage.completion_tokens,
                            usage.cached_tokens,
                        )
                    )
                    if not behind.charging:
                        stream.end(answer, buffers, size)
                        return
                    stream.piece(answer, buffers, size)
                    # What cannot be worded is not charged: the front says when it could, and cancels when not.
                    await stream.next()
                    break
            stream.end()
        except TidemillError as error:
            stream.fail(error)
        except asyncio.CancelledError:
            if stream.lost:  # nobody else is left to count it
                service.failed(None, RequestCancelled.code)
        except (FrameError, msgspec.DecodeError) as error:
            log.error("a request of a front cannot be read: %s", error)
            stream.fail(ServiceError("the processes of this service do not understand each other; its log tells more"))
        except Exception:
            log.exception("a request failed in a way that was not foreseen")
            stream.fail(ServiceError("this server failed; its log tells more"))

    async def _told(self, stream: Asked, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except TidemillError as error:
            stream.fail(error)
        except Exception:
            log.exception("a request that was passed on failed in a way that was not foreseen")
            stream.fail(ServiceError("this server failed; its log tells more"))
