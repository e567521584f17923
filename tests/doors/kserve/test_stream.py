"""`ModelStreamInfer`: a stream of questions is as many calls, answered in order, and outlives what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from doors.over_grpc import BEARER, KSERVE, LIMIT_S, asked, call, held, serving
from fakes import HALVE, KEY, FakeServed, FakeService
from tidemill.core import schemas
from tidemill.core.errors import RevokedKey
from tidemill.core.request import Caller, Usage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Tensors
from tidemill.doors import grpc_server

ModelStreamInferResponse = schemas.message("inference.ModelStreamInferResponse")
STREAM = KSERVE + "ModelStreamInfer"


def opened(channel: grpc.aio.Channel, metadata: Any = BEARER, **options: Any) -> Any:
    options.setdefault("timeout", LIMIT_S)
    return channel.stream_stream(STREAM)(metadata=metadata, **options)


async def heard(stream: Any) -> Any:
    return ModelStreamInferResponse.FromString(await stream.read())


async def values(stream: Any) -> list[float]:
    told = await heard(stream)
    assert not told.error_message
    return np.frombuffer(told.infer_response.raw_output_contents[0], np.float32).tolist()


async def test_each_message_is_answered_and_charged_like_a_call_of_its_own() -> None:
    service = FakeService()
    async with serving(service) as channel:
        stream = opened(channel)
        for number in range(5):
            await stream.write(asked([[number, number]]))
        assert [await values(stream) for _ in range(5)] == [[n / 2, n / 2] for n in range(5)]
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
    assert list(service.ledger.booked.values()) == [Usage()] * 5


async def test_equal_messages_are_charged_each_and_the_same_stream_again_is_not() -> None:
    service = FakeService()
    named = (*BEARER, ("idempotency-key", "order-7"))
    async with serving(service) as channel:
        for _ in range(2):
            stream = opened(channel, named)
            for _ in range(3):
                await stream.write(asked())
            await stream.done_writing()
            for _ in range(3):
                await values(stream)
    assert list(service.ledger.booked.values()) == [Usage()] * 3


async def test_answers_come_in_the_order_of_the_questions() -> None:
    """The first is held back in the model; those behind it are done long before."""
    service = FakeService()
    first, answered = asyncio.Event(), []
    pieces = service.fleet._pieces

    async def held_first(request: Any) -> Any:
        if request.work.inputs["x"][0, 0] == 0:
            await first.wait()
        async for piece in pieces(request):
            answered.append(request.work.inputs["x"][0, 0])
            if len(answered) == 3:
                first.set()
            yield piece

    service.fleet._pieces = held_first  # type: ignore[method-assign]
    async with serving(service) as channel:
        stream = opened(channel)
        for number in range(4):
            await stream.write(asked([[number, 0]]))
        assert [(await values(stream))[0] for _ in range(4)] == [0, 0.5, 1, 1.5]
    assert answered == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (asked(model="nobody", id="q"), "there is no model 'nobody'"),
        (asked([1, 2], id="q"), "has shape [2]"),
        (asked(outputs=[{"name": "z"}], id="q"), "no output 'z'"),
        (b"\xff\xff", "the message is no inference.ModelInferRequest"),
    ],
)
async def test_what_is_refused_is_told_in_the_stream_which_goes_on(wrong: bytes, words: str) -> None:
    service = FakeService()
    async with serving(service) as channel:
        stream = opened(channel)
        await stream.write(asked())
        await stream.write(wrong)
        await stream.write(asked([[8, 8]]))
        assert await values(stream) == [0.5, 1]
        told = await heard(stream)
        assert words in told.error_message
        assert told.infer_response.id == ("" if wrong == b"\xff\xff" else "q")
        assert await values(stream) == [4, 4]
    assert len(service.ledger.booked) == 2


async def test_an_unforeseen_error_ends_no_stream_and_leaks_nothing() -> None:
    def broken(inputs: Tensors) -> Tensors:
        raise RuntimeError("the secret is plum")

    async with serving(FakeService(FakeServed("half", 1, HALVE, broken))) as channel:
        stream = opened(channel)
        for _ in range(2):
            await stream.write(asked())
            told = await heard(stream)
            assert "this server failed" in told.error_message
            assert "plum" not in told.error_message


@pytest.mark.parametrize("more", [{}, {"parameters": {"triton_enable_empty_final_response": {"bool_param": True}}}])
async def test_the_one_answer_is_marked_as_the_final_one(more: dict[str, Any]) -> None:
    async with serving(FakeService()) as channel:
        stream = opened(channel)
        await stream.write(asked(**more))
        told = await heard(stream)
        assert told.infer_response.parameters["triton_final_response"].bool_param
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_a_stream_without_a_key_is_refused_with_a_status() -> None:
    async with serving(FakeService()) as channel:
        stream = opened(channel, ())
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(await stream.trailing_metadata())["tidemill-code"] == "key.missing"


async def test_a_key_that_is_revoked_is_refused_within_its_stream() -> None:
    service = FakeService()
    async with serving(service) as channel:
        stream = opened(channel)
        await stream.write(asked())
        assert await values(stream) == [0.5, 1]

        def revoked(credential: str) -> Caller:
            assert credential == KEY
            raise RevokedKey("the key was revoked")

        service.identity.recognise = revoked  # type: ignore[method-assign]
        await stream.write(asked())
        assert "revoked" in (await heard(stream)).error_message
    assert len(service.ledger.booked) == 1


async def test_no_more_are_under_way_than_the_setting_allows() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    async with serving(service, stream_requests_max=3) as channel:
        stream = opened(channel)
        for _ in range(10):
            await stream.write(asked())
        await held(service, 3)
        for _ in range(5):  # round trips: whatever would still be read is read by now
            await call(channel, KSERVE + "ServerLive", b"")
        assert service.gate.held == 3
        service.fleet.held.set()
        for _ in range(10):
            await values(stream)
    assert service.gate.held == 0


async def test_a_client_that_vanishes_takes_back_all_that_is_under_way() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    async with asyncio.timeout(LIMIT_S), serving(service) as channel:
        stream = opened(channel)
        for _ in range(3):
            await stream.write(asked())
        await held(service, 3)
        stream.cancel()
        await held(service, 0)
        await call(channel, KSERVE + "ServerLive", b"")
    assert not service.ledger.booked


async def test_a_stream_past_its_deadline_takes_back_what_is_under_way() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    async with asyncio.timeout(LIMIT_S), serving(service) as channel:
        stream = opened(channel, timeout=0.3)
        await stream.write(asked())
        assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await held(service, 0)


async def test_the_deadline_of_each_message_begins_when_it_is_read() -> None:
    service = FakeService()
    async with serving(service, request_timeout_ms=30_000) as channel:
        stream = opened(channel, timeout=None)
        loop_s = asyncio.get_running_loop().time()
        await stream.write(asked())
        await values(stream)
        await stream.write(asked(parameters={"timeout": {"int64_param": 5_000_000}}))
        await values(stream)
    assert [round((request.deadline - loop_s) / 5) * 5 for request in service.fleet.requests] == [30, 5]


async def test_a_server_that_goes_down_answers_what_it_read_and_ends_idle_streams() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    server, port = await grpc_server.start(service, "127.0.0.1", 0, Settings())
    async with asyncio.timeout(LIMIT_S), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        idle, busy = opened(channel), opened(channel)
        await busy.write(asked())
        await service.fleet.arrived.wait()
        await idle.wait_for_connection()
        stopping = asyncio.create_task(server.stop(LIMIT_S))
        assert await idle.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(await idle.trailing_metadata())["tidemill-code"] == "admission.draining"
        service.fleet.held.set()
        assert await values(busy) == [0.5, 1]
        assert await busy.code() is grpc.StatusCode.UNAVAILABLE
        await stopping


async def test_a_message_beyond_the_limit_ends_the_stream() -> None:
    service = FakeService()
    async with serving(service, body_bytes_max=4096) as channel:
        stream = opened(channel)
        await stream.write(asked([[0] * 100_000]))
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await call(channel, KSERVE + "ServerLive", b"")
    assert not service.fleet.requests
