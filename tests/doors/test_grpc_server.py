"""The gRPC door end to end, with a true service behind it and both raw and stock clients before it."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from doors.over_grpc import BEARER, KSERVE, LIMIT_S, TENSORFLOW, asked, call, refused, serving
from fakes import HALVE, KEY, FakeServed, FakeService
from tidemill.core import schemas
from tidemill.core.errors import Draining, InvalidSetting, ModelNotReady
from tidemill.core.request import Usage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Tensors
from tidemill.doors import grpc_server

ModelInferRequest = schemas.message("inference.ModelInferRequest")
ModelInferResponse = schemas.message("inference.ModelInferResponse")
ModelReadyRequest = schemas.message("inference.ModelReadyRequest")
ModelReadyResponse = schemas.message("inference.ModelReadyResponse")
PredictRequest = schemas.message("tensorflow.serving.PredictRequest")
PredictResponse = schemas.message("tensorflow.serving.PredictResponse")


async def test_kserve_answers_raw() -> None:
    async with serving(FakeService()) as channel:
        reply = ModelInferResponse.FromString(await call(channel, KSERVE + "ModelInfer", asked(id="q")))
    assert (reply.model_name, reply.model_version, reply.id) == ("half", "1", "q")
    assert (reply.outputs[0].name, reply.outputs[0].datatype, list(reply.outputs[0].shape)) == ("y", "FP32", [1, 2])
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [0.5, 1]


async def test_tensorflow_answers_typed() -> None:
    body = PredictRequest(model_spec={"name": "half"})
    body.inputs["x"].dtype = 1
    body.inputs["x"].tensor_shape.dim.add(size=1)
    body.inputs["x"].tensor_shape.dim.add(size=2)
    body.inputs["x"].float_val.extend([1, 2])
    async with serving(FakeService()) as channel:
        reply = PredictResponse.FromString(await call(channel, TENSORFLOW + "Predict", body.SerializeToString()))
    assert list(reply.outputs["y"].float_val) == [0.5, 1]


async def test_tritons_client_is_served() -> None:
    server, port = await grpc_server.start(FakeService(), "127.0.0.1", 0, Settings())
    x = np.array([[2, 4]], np.float32)
    given = triton.InferInput("x", [1, 2], "FP32")
    given.set_data_from_numpy(x)
    headers = {"authorization": f"Bearer {KEY}"}
    try:
        async with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert (await client.get_server_metadata()).name == "tidemill"
            assert await client.is_model_ready("half", headers=headers)
            metadata = await client.get_model_metadata("half", headers=headers)
            answer = await client.infer("half", [given], headers=headers, outputs=[triton.InferRequestedOutput("y")])
            with pytest.raises(InferenceServerException, match="no output 'z'"):
                await client.infer("half", [given], headers=headers, outputs=[triton.InferRequestedOutput("z")])
    finally:
        await server.stop(0)
    assert answer.as_numpy("y").tolist() == [[1, 2]]
    assert (metadata.platform, list(metadata.versions)) == ("fake", ["1"])
    assert list(metadata.inputs[0].shape) == [-1, -1]


async def test_an_answer_is_charged_once_under_its_id() -> None:
    service = FakeService()
    named = (*BEARER, ("x-request-id", "order-7"))
    async with serving(service) as channel:
        for _ in range(2):
            done = channel.unary_unary(KSERVE + "ModelInfer")(asked(), metadata=named, timeout=LIMIT_S)
            await done
            assert dict(await done.trailing_metadata())["x-request-id"] == "order-7"
        await call(channel, KSERVE + "ModelInfer", asked([[9]]), metadata=named)
    assert list(service.ledger.booked.values()) == [Usage(), Usage()]


async def test_the_deadline_of_the_call_reaches_the_request() -> None:
    service = FakeService()
    loop_s = asyncio.get_running_loop().time()  # the monotonic clock
    async with serving(service, request_timeout_ms=30_000) as channel:
        await call(channel, KSERVE + "ModelInfer", asked(), timeout=10)
        await call(channel, KSERVE + "ModelInfer", asked(), timeout=None)
        await call(channel, KSERVE + "ModelInfer", asked(parameters={"timeout": {"int64_param": 5_000_000}}))
    left = [round((request.deadline - loop_s) / 5) * 5 for request in service.fleet.requests]
    assert left == [10, 30, 5]


@pytest.mark.parametrize("metadata", [(), (("authorization", "Basic abc"),)])
async def test_a_call_without_a_key_is_refused_before_its_body(metadata: Any) -> None:
    async with serving(FakeService()) as channel:
        status, trailing, _ = await refused(channel, KSERVE + "ModelInfer", b"not even a message", metadata=metadata)
    assert status is grpc.StatusCode.UNAUTHENTICATED
    assert trailing["tidemill-code"] == "key.missing"
    assert trailing["x-request-id"]


async def test_limits_are_judged_before_tensors_are_read() -> None:
    service = FakeService()
    service.gate.refusal = Draining("this server is going down", retry_after_s=1)
    wrong = ModelInferRequest(model_name="half", raw_input_contents=[b"1"]).SerializeToString()
    async with serving(service) as channel:
        status, trailing, _ = await refused(channel, KSERVE + "ModelInfer", wrong)
    assert (status, trailing["tidemill-code"]) == (grpc.StatusCode.UNAVAILABLE, "admission.draining")
    assert 1000 <= int(trailing["grpc-retry-pushback-ms"]) <= 2000
    assert service.fleet.find("half").failures == ["admission.draining"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "request.malformed"),
        (asked(model="nothing"), grpc.StatusCode.NOT_FOUND, "model.unknown"),
        (asked(model_version="7"), grpc.StatusCode.NOT_FOUND, "model.version_unknown"),
        (asked(model_version="new"), grpc.StatusCode.NOT_FOUND, "model.version_unknown"),
        (asked([1, 2]), grpc.StatusCode.INVALID_ARGUMENT, "input.shape"),
        (asked(outputs=[{"name": "z"}]), grpc.StatusCode.INVALID_ARGUMENT, "output.unknown"),
        (ModelInferRequest(model_name="half").SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT, "input.missing"),
    ],
)
async def test_errors_carry_their_code(body: bytes, status: grpc.StatusCode, code: str) -> None:
    service = FakeService()
    async with serving(service) as channel:
        told, trailing, details = await refused(channel, KSERVE + "ModelInfer", body)
    assert (told, trailing["tidemill-code"]) == (status, code)
    assert details
    assert not service.ledger.booked


async def test_an_unforeseen_error_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(inputs: Tensors) -> Tensors:
        raise RuntimeError("the secret is plum")

    async with serving(FakeService(FakeServed("half", 1, HALVE, broken))) as channel:
        with caplog.at_level(logging.ERROR, logger="tidemill.doors"):
            status, trailing, details = await refused(channel, KSERVE + "ModelInfer", asked())
    assert (status, trailing["tidemill-code"]) == (grpc.StatusCode.INTERNAL, "internal")
    assert "plum" not in details
    assert trailing["x-request-id"] in details
    assert "the secret is plum" in caplog.text


async def test_a_long_message_is_cut_to_what_clients_take() -> None:
    async with serving(FakeService()) as channel:
        status, _, details = await refused(channel, KSERVE + "ModelInfer", asked(model="模" * 5000))
    assert status is grpc.StatusCode.NOT_FOUND
    assert len(details.encode()) <= 2000


async def test_a_cancelled_call_cancels_the_work() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    async with asyncio.timeout(LIMIT_S), serving(service) as channel:
        under_way = channel.unary_unary(KSERVE + "ModelInfer")(asked(), metadata=BEARER)
        await service.fleet.arrived.wait()
        assert service.gate.held == 1
        under_way.cancel()
        await service.fleet.cancelled.wait()
        await call(channel, KSERVE + "ServerLive", b"")
    assert service.gate.held == 0
    assert not service.ledger.booked


async def test_a_call_past_its_deadline_cancels_the_work() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    async with asyncio.timeout(LIMIT_S), serving(service) as channel:
        status, _, _ = await refused(channel, KSERVE + "ModelInfer", asked(), timeout=0.2)
        await service.fleet.cancelled.wait()
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_body_that_never_comes_keeps_nothing_of_the_service() -> None:
    service = FakeService()
    async with asyncio.timeout(LIMIT_S), serving(service) as channel:
        silent = channel.stream_unary(KSERVE + "ModelInfer", response_deserializer=bytes)(metadata=BEARER, timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await silent
        await call(channel, KSERVE + "ServerLive", b"")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.failures == {}


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_body_beyond_the_limit_is_refused(compression: grpc.Compression) -> None:
    service = FakeService()
    async with serving(service, body_bytes_max=4096) as channel:
        status, _, _ = await refused(channel, KSERVE + "ModelInfer", asked([[0] * 100_000]), compression=compression)
        await call(channel, KSERVE + "ModelInfer", asked())
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(service.fleet.requests) == 1


async def test_metadata_beyond_the_limit_is_refused() -> None:
    async with serving(FakeService(), header_bytes_max=2048) as channel:
        status, _, _ = await refused(channel, KSERVE + "ServerLive", b"", metadata=(("x-long", "a" * 4000),))
        await call(channel, KSERVE + "ServerLive", b"")
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_one_call_too_many_is_refused() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    server, port = await grpc_server.start(service, "127.0.0.1", 0, Settings(connections_max=1))
    target = f"127.0.0.1:{port}"
    # Two connections: on one, the bound on streams would make the client wait.
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        asyncio.timeout(LIMIT_S),
        grpc.aio.insecure_channel(target, options=own) as first,
        grpc.aio.insecure_channel(target, options=own) as second,
    ):
        under_way = first.unary_unary(KSERVE + "ModelInfer")(asked(), metadata=BEARER)
        await service.fleet.arrived.wait()
        status, trailing, _ = await refused(second, KSERVE + "ModelInfer", asked())
        service.fleet.held.set()
        await under_way
    await server.stop(0)
    assert (status, trailing["tidemill-code"]) == (grpc.StatusCode.UNAVAILABLE, "admission.overloaded")


async def test_a_model_that_is_not_ready_says_so() -> None:
    class Waking(FakeService):
        def __init__(self) -> None:
            super().__init__()
            self.fleet.find = self._not_ready  # type: ignore[method-assign]

        def _not_ready(self, name: str, version: int | None = None, label: str | None = None) -> FakeServed:
            raise ModelNotReady(f"model {name!r} is loading")

    body = ModelReadyRequest(name="half").SerializeToString()
    async with serving(Waking()) as channel:
        reply = ModelReadyResponse.FromString(await call(channel, KSERVE + "ModelReady", body))
        status, _, _ = await refused(channel, KSERVE + "ModelInfer", asked())
    assert not reply.ready
    assert status is grpc.StatusCode.UNAVAILABLE
    async with serving(FakeService()) as channel:
        for absent in (ModelReadyRequest(name="no"), ModelReadyRequest(name="half", version="7")):
            body = await call(channel, KSERVE + "ModelReady", absent.SerializeToString())
            assert not ModelReadyResponse.FromString(body).ready


async def test_a_method_that_is_not_offered_is_unimplemented() -> None:
    async with serving(FakeService()) as channel:
        status, _, _ = await refused(channel, TENSORFLOW + "SessionRun", b"")
    assert status is grpc.StatusCode.UNIMPLEMENTED


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=f"127.0.0.1:{port}"):
            await grpc_server.start(FakeService(), "127.0.0.1", port, Settings())


async def test_a_second_server_cannot_share_the_port() -> None:
    server, port = await grpc_server.start(FakeService(), "127.0.0.1", 0, Settings())
    try:
        with pytest.raises(InvalidSetting):
            await grpc_server.start(FakeService(), "127.0.0.1", port, Settings())
    finally:
        await server.stop(0)
