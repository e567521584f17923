"""gRPC's own health protocol, for the whole service, each gRPC service and each model; runs on the owner's loop.

Whoever asks may know whether the service and its gRPC services serve; of models those with a key are told, as over
`ModelReady`. https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

import grpc

from tidemill.core import schemas
from tidemill.core.errors import CallerError, ModelNotReady, TidemillError, UnknownModel
from tidemill.core.text import short
from tidemill.doors.grpc_call import Call, Calls, parsed, refuse, service_handler

SERVICE = "grpc.health.v1.Health"
UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)

HealthCheckRequest = schemas.message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = schemas.message("grpc.health.v1.HealthCheckResponse")
HealthListResponse = schemas.message("grpc.health.v1.HealthListResponse")


def handler(calls: Calls, services: Collection[str]) -> grpc.GenericRpcHandler:
    """`services` are the names of all gRPC services that are served."""
    health = _Health(calls, frozenset(services))
    return service_handler(
        SERVICE,
        [
            ("Check", calls.handler(health.check, keyless=True)),
            ("List", calls.handler(health.list, keyless=True)),
            ("Watch", grpc.unary_stream_rpc_method_handler(health.watch)),
        ],
    )


class _Health:
    def __init__(self, calls: Calls, services: frozenset[str]) -> None:
        self._calls = calls
        self._services = services

    async def check(self, call: Call) -> bytes:
        """Raises `UnknownModel` for what is neither a service nor a model."""
        name = parsed(HealthCheckRequest, call.body).service
        status = self._status(call, name)
        if status == SERVICE_UNKNOWN:
            raise UnknownModel(f"{short(name)} is neither a gRPC service nor a model of this server")
        return _encoded(HealthCheckResponse(status=status))

    async def list(self, call: Call) -> bytes:
        """The whole, every service, and to those with a key every model."""
        names = ["", *sorted(self._services)]
        with contextlib.suppress(CallerError):
            self._calls.service.identity.recognise(call.credential)
            names += sorted({each.name for each in self._calls.service.fleet.replicas()})
        statuses = {name: HealthCheckResponse(status=self._status(call, name)) for name in names}
        return _encoded(HealthListResponse(statuses=statuses))

    async def watch(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Tells the status, and each change of it, until the client has enough or the server goes down."""
        calls, call = self._calls, Call()
        calls.in_flight += 1
        try:
            calls.read_head(call, context)
            name = parsed(HealthCheckRequest, body).service
            told = -1
            while not calls.ending.is_set():
                status = self._status(call, name)
                if status != told:
                    await context.write(_encoded(HealthCheckResponse(status=status)))
                    told = status
                await self._pause()
            if told != NOT_SERVING:
                await context.write(_encoded(HealthCheckResponse(status=NOT_SERVING)))
            return
        except TidemillError as error:
            refused = calls.refusal(call, error)
        finally:
            calls.in_flight -= 1
        await refuse(context, call, refused)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calls.ending.wait(), self._calls.settings.health_watch_ms / 1000)

    def _status(self, call: Call, name: str) -> int:
        """Raises `MissingKey`, `InvalidKey`, `RevokedKey` where a model is asked for without a good key."""
        calls = self._calls
        if not name or name in self._services:
            return SERVING if calls.is_ready() else NOT_SERVING
        calls.service.identity.recognise(call.credential)
        try:
            calls.service.fleet.find(name)
        except ModelNotReady:
            return NOT_SERVING
        except UnknownModel:
            return SERVICE_UNKNOWN
        return SERVING


def _encoded(message: Any) -> bytes:
    return bytes(message.SerializeToString())
