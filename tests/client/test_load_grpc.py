"""The gRPC load generator against an echo of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tidemill.client import load_grpc
from tidemill.client.load_grpc import Answer, Retries

METHOD = "/test.Echo/Call"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async def echo(message: bytes, context: Any) -> bytes:
        if message == b"refuse":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused")
        if message == b"wait":
            await asyncio.sleep(0.05)
        if message == b"metadata":
            return dict(context.invocation_metadata())["x-request-id"].encode()
        return message

    server = grpc.aio.server()
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def test_every_call_is_answered_with_the_bytes_of_the_server(address: str) -> None:
    answers: list[Answer] = []
    result = await load_grpc.run(address, METHOD, b"hello", in_flight=4, requests=40, on_answer=answers.append)
    assert (result.sent, result.ok, result.lost) == (40, 40, 0)
    assert sorted(answer.number for answer in answers) == list(range(40))
    assert {answer.body for answer in answers} == {b"hello"}


async def test_a_refusal_is_counted_by_its_code(address: str) -> None:
    result = await load_grpc.run(address, METHOD, b"refuse", in_flight=2, requests=5)
    assert (result.ok, result.statuses) == (0, {grpc.StatusCode.INVALID_ARGUMENT.value[0]: 5})


async def test_each_call_carries_metadata_of_its_own(address: str) -> None:
    seen: list[bytes] = []
    await load_grpc.run(
        address,
        METHOD,
        b"metadata",
        in_flight=2,
        requests=6,
        connections=2,
        metadata_of=lambda number: {"x-request-id": f"r{number}"},
        on_answer=lambda answer: seen.append(answer.body),
    )
    assert sorted(seen) == [b"r%d" % number for number in range(6)]


async def test_a_server_that_is_away_is_tried_a_bounded_number_of_times() -> None:
    retries = Retries(attempts_max=3, delay_s=0.001)
    result = await load_grpc.run("127.0.0.1:1", METHOD, b"", in_flight=2, requests=100, retries=retries)
    assert (result.statuses, result.gave_up) == ({grpc.StatusCode.UNAVAILABLE.value[0]: 8}, 2)


async def test_an_open_loop_calls_when_it_is_due_and_counts_from_then(address: str) -> None:
    answers: list[Answer] = []
    arrivals = [0.0, 0.0, 0.002, 0.004, 0.004]
    result = await load_grpc.run_open(
        address, METHOD, [b"a", b"bb"], arrivals=arrivals, in_flight_max=2, on_answer=answers.append
    )
    assert (result.sent, result.ok, result.unsent) == (5, 5, 0)
    assert {(answer.number % 2, answer.body) for answer in answers} == {(0, b"a"), (1, b"bb")}
    assert result.wall_s >= arrivals[-1]
    assert len(result.late_s) == 5
    assert min(result.late_s) >= 0


async def test_calls_that_found_no_place_in_time_are_unsent(address: str) -> None:
    result = await load_grpc.run_open(address, METHOD, b"wait", arrivals=[0.0] * 3, in_flight_max=1, grace_s=0.01)
    assert (result.sent, result.ok, result.unsent) == (1, 1, 2)
