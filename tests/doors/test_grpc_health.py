"""gRPC's health protocol over a real connection, for the whole, for services and for models."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from doors.over_grpc import BEARER, KSERVE, LIMIT_S, call, refused, serving
from fakes import FakeServed, FakeService
from tidemill.core import schemas
from tidemill.core.errors import ModelNotReady
from tidemill.core.settings import Settings
from tidemill.doors import grpc_server

HEALTH = "/grpc.health.v1.Health/"
HealthCheckRequest = schemas.message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = schemas.message("grpc.health.v1.HealthCheckResponse")
HealthListResponse = schemas.message("grpc.health.v1.HealthListResponse")
UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
]


class Waking(FakeService):
    """`half` is on its way until `ready`."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = False
        find = self.fleet.find

        def found(name: str, version: int | None = None, label: str | None = None) -> FakeServed:
            served = find(name, version, label)
            if not self.ready:
                raise ModelNotReady(f"model {name!r} is loading")
            return served

        self.fleet.find = found  # type: ignore[method-assign]


def about(name: str) -> bytes:
    return bytes(HealthCheckRequest(service=name).SerializeToString())


async def status(channel: grpc.aio.Channel, name: str, metadata: Any = ()) -> int:
    return int(HealthCheckResponse.FromString(await call(channel, HEALTH + "Check", about(name), metadata)).status)


@pytest.mark.parametrize("name", ["", *SERVICES])
async def test_whoever_asks_is_told_of_the_whole_and_of_each_service(name: str) -> None:
    async with serving(FakeService()) as channel:
        assert await status(channel, name) == SERVING


async def test_a_service_that_is_not_ready_does_not_serve() -> None:
    server, port = await grpc_server.start(FakeService(), "127.0.0.1", 0, Settings(), lambda: False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await status(channel, "") == NOT_SERVING
        assert await status(channel, "inference.GRPCInferenceService") == NOT_SERVING
    await server.stop(0)


async def test_models_are_told_to_those_with_a_key() -> None:
    service = Waking()
    async with serving(service) as channel:
        told, trailing, _ = await refused(channel, HEALTH + "Check", about("half"), metadata=())
        assert (told, trailing["tidemill-code"]) == (grpc.StatusCode.UNAUTHENTICATED, "key.missing")
        assert await status(channel, "half", BEARER) == NOT_SERVING
        service.ready = True
        assert await status(channel, "half", BEARER) == SERVING


async def test_what_nobody_knows_is_not_found() -> None:
    async with serving(FakeService()) as channel:
        told, _, details = await refused(channel, HEALTH + "Check", about("nobody"))
    assert told is grpc.StatusCode.NOT_FOUND
    assert "'nobody'" in details


async def test_the_list_names_services_and_to_those_with_a_key_models() -> None:
    async with serving(FakeService()) as channel:
        open_to_all = HealthListResponse.FromString(await call(channel, HEALTH + "List", b"", ()))
        keyed = HealthListResponse.FromString(await call(channel, HEALTH + "List", b""))
    assert sorted(open_to_all.statuses) == ["", *SERVICES]
    assert sorted(keyed.statuses) == sorted(["", "half", *SERVICES])
    assert {each.status for each in keyed.statuses.values()} == {SERVING}


async def test_a_watch_tells_the_status_each_change_and_the_end() -> None:
    service = Waking()
    server, port = await grpc_server.start(service, "127.0.0.1", 0, Settings(health_watch_ms=10))
    async with asyncio.timeout(LIMIT_S), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = channel.unary_stream(HEALTH + "Watch")(about("half"), metadata=BEARER)
        told = [HealthCheckResponse.FromString(await watch.read()).status]
        service.ready = True
        told.append(HealthCheckResponse.FromString(await watch.read()).status)
        await server.stop(LIMIT_S)
        told.append(HealthCheckResponse.FromString(await watch.read()).status)
        assert told == [NOT_SERVING, SERVING, NOT_SERVING]
        assert await watch.read() is grpc.aio.EOF
        assert await watch.code() is grpc.StatusCode.OK


async def test_a_watch_of_what_nobody_knows_goes_on_until_it_is_there() -> None:
    service = FakeService()
    models, service.fleet.models = service.fleet.models, ()
    async with asyncio.timeout(LIMIT_S), serving(service, health_watch_ms=10) as channel:
        watch = channel.unary_stream(HEALTH + "Watch")(about("half"), metadata=BEARER)
        assert HealthCheckResponse.FromString(await watch.read()).status == SERVICE_UNKNOWN
        service.fleet.models = models
        assert HealthCheckResponse.FromString(await watch.read()).status == SERVING
        watch.cancel()
        await call(channel, KSERVE + "ServerLive", b"")


async def test_a_watch_of_a_model_without_a_key_is_refused() -> None:
    async with serving(FakeService()) as channel:
        watch = channel.unary_stream(HEALTH + "Watch")(about("half"))
        assert await watch.code() is grpc.StatusCode.UNAUTHENTICATED
