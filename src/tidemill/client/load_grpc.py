"""A closed-loop gRPC load generator: unary calls of ready bytes, N in flight; runs in the caller's process.

A call is not repeated. gRPC reports a broken connection and a server's own refusal alike as UNAVAILABLE (14), so both
are counted as that status; the channel connects again by itself, and a run of them is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tidemill.client.result import Answer, OnAnswer, Quota, Result, Retries

__all__ = ["Answer", "MetadataOf", "OnAnswer", "Result", "Retries", "run"]

MetadataOf: TypeAlias = Callable[[int], Mapping[str, str]]
"""Number of a call, from 0 -> metadata that it alone carries."""

_UNAVAILABLE = 14
_BYTES_MAX = 2**31 - 1


async def run(
    address: str,
    method: str,
    message: bytes,
    metadata: Mapping[str, str] | None = None,
    *,
    in_flight: int,
    requests: int | None = None,
    seconds: float | None = None,
    connections: int = 1,
    metadata_of: MetadataOf | None = None,
    on_answer: OnAnswer | None = None,
    retries: Retries | None = None,
) -> Result:
    """Call `method` (`/package.Service/Method`) of `address` (`host:port`, plaintext) with the serialised `message`.

    Keeps `in_flight` calls under way over `connections` HTTP/2 connections. `on_answer` gets each call's end, with the
    serialised reply in `body`. Raises `InvalidSetting`.
    """
    quota = Quota(time.perf_counter, in_flight, requests, seconds)
    result = Result(ok_status=grpc.StatusCode.OK.value[0])
    bounds = retries or Retries()
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", _BYTES_MAX),
        ("grpc.max_send_message_length", _BYTES_MAX),
        ("grpc.initial_reconnect_backoff_ms", max(int(bounds.delay_s * 1e3), 100)),
        ("grpc.max_reconnect_backoff_ms", max(int(bounds.delay_s * 1e3), 100)),
    )
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(max(connections, 1))]
    calls = [channel.unary_unary(method) for channel in channels]
    fixed = tuple((metadata or {}).items())

    def metadata_for(number: int) -> tuple[tuple[str, str], ...]:
        return fixed if metadata_of is None else fixed + tuple(metadata_of(number).items())

    async def keep_calling(call: Any) -> None:
        failures = 0
        while (number := quota.next()) is not None:
            result.sent += 1
            answer = await _call(call, number, message, metadata_for(number), bounds.answer_s_max)
            result.take(answer)
            if on_answer is not None:
                on_answer(answer)
            failures = failures + 1 if answer.status == _UNAVAILABLE else 0
            if failures > bounds.attempts_max:
                result.gave_up += 1
                return
            if failures:
                await asyncio.sleep(bounds.delay_s)

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for place in range(in_flight):
                group.create_task(keep_calling(calls[place % len(calls)]))
        result.wall_s = time.perf_counter() - started
    finally:
        for channel in channels:
            await channel.close()
    result.connects = len(channels)
    return result


async def _call(
    call: Any, number: int, message: bytes, metadata: tuple[tuple[str, str], ...], answer_s_max: float
) -> Answer:
    sent_at = time.perf_counter()
    try:
        reply = await call(message, metadata=metadata, timeout=answer_s_max)
    except grpc.aio.AioRpcError as error:
        status, details = error.code().value[0], error.details() or ""
        return Answer(number, status, time.perf_counter() - sent_at, error=details)
    return Answer(number, grpc.StatusCode.OK.value[0], time.perf_counter() - sent_at, body=reply)
