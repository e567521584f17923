"""A gRPC load generator, closed loop and open: unary calls of ready bytes; runs in the caller's process.

A call is not repeated. gRPC reports a broken connection and a server's own refusal alike as UNAVAILABLE (14), so both
are counted as that status; the channel connects again by itself, and a run of them is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tidemill.client.alarm import Alarm
from tidemill.client.connection import Bodies
from tidemill.client.result import Answer, OnAnswer, Quota, Result, Retries, check_open

__all__ = ["Answer", "MetadataOf", "OnAnswer", "Result", "Retries", "run", "run_open"]

MetadataOf: TypeAlias = Callable[[int], Mapping[str, str]]
"""Number of a call, from 0 -> metadata that it alone carries."""

_OK = 0
_UNAVAILABLE = 14
_BYTES_MAX = 2**31 - 1


async def run(
    address: str,
    method: str,
    message: Bodies,
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
    load = _Calls(message, metadata, metadata_of, on_answer, retries or Retries())

    async def keep_calling(call: Any) -> None:
        failures = 0
        while (number := quota.next()) is not None:
            answer = await load.one(call, number, time.perf_counter())
            failures = failures + 1 if answer.status == _UNAVAILABLE else 0
            if failures > load.retries.attempts_max:
                load.result.gave_up += 1
                return
            if failures:
                await asyncio.sleep(load.retries.delay_s)

    async with load.channels(address, method, connections) as calls:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for place in range(in_flight):
                group.create_task(keep_calling(calls[place % len(calls)]))
        load.result.wall_s = time.perf_counter() - started
    return load.result


async def run_open(
    address: str,
    method: str,
    message: Bodies,
    metadata: Mapping[str, str] | None = None,
    *,
    arrivals: Sequence[float],
    in_flight_max: int,
    connections: int = 1,
    grace_s: float = 5.0,
    on_answer: OnAnswer | None = None,
    retries: Retries | None = None,
) -> Result:
    """Make a call at each of `arrivals`, ascending seconds from the start; latencies count from then.

    What is due while `in_flight_max` are under way waits; what still waits `grace_s` after the last arrival is not
    sent, and counted in `unsent`. Raises `InvalidSetting`.
    """
    check_open(arrivals, in_flight_max)
    load = _Calls(message, metadata, None, on_answer, retries or Retries())
    places = asyncio.Semaphore(in_flight_max)
    due = asyncio.Event()
    alarm = Alarm(due.set)

    async def call_once(call: Any, number: int, due_at: float) -> None:
        try:
            await load.one(call, number, due_at)
        finally:
            places.release()

    async def conduct(calls: Sequence[Any], group: asyncio.TaskGroup, started: float) -> None:
        for number, arrival in enumerate(arrivals):
            due_at = started + arrival
            if due_at > time.perf_counter():
                due.clear()
                alarm.set(due_at)
                await due.wait()
            await places.acquire()
            load.result.late_s.append(time.perf_counter() - due_at)
            group.create_task(call_once(calls[number % len(calls)], number, due_at))

    async with load.channels(address, method, connections) as calls:
        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                conductor = group.create_task(conduct(calls, group, started))
                await asyncio.wait((conductor,), timeout=arrivals[-1] + grace_s)
                conductor.cancel()
        finally:
            alarm.close()
        load.result.wall_s = time.perf_counter() - started
    load.result.unsent = len(arrivals) - load.result.sent
    return load.result


class _Calls:
    """What the calls of one run share."""

    def __init__(
        self,
        messages: Bodies,
        metadata: Mapping[str, str] | None,
        metadata_of: MetadataOf | None,
        on_answer: OnAnswer | None,
        retries: Retries,
    ) -> None:
        self.result = Result(ok_status=_OK)
        self.retries = retries
        self._messages = [messages] if isinstance(messages, bytes) else list(messages)
        self._fixed = tuple((metadata or {}).items())
        self._metadata_of = metadata_of
        self._on_answer = on_answer

    @asynccontextmanager
    async def channels(self, address: str, method: str, connections: int) -> AsyncIterator[list[Any]]:
        """The method over each of so many connections of their own."""
        backoff_ms = max(int(self.retries.delay_s * 1e3), 100)
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", _BYTES_MAX),
            ("grpc.max_send_message_length", _BYTES_MAX),
            ("grpc.initial_reconnect_backoff_ms", backoff_ms),
            ("grpc.max_reconnect_backoff_ms", backoff_ms),
        )
        channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(max(connections, 1))]
        self.result.connects = len(channels)
        try:
            yield [channel.unary_unary(method) for channel in channels]
        finally:
            for channel in channels:
                await channel.close()

    async def one(self, call: Any, number: int, due_at: float) -> Answer:
        message = self._messages[number % len(self._messages)]
        metadata = self._fixed
        if self._metadata_of is not None:
            metadata += tuple(self._metadata_of(number).items())
        self.result.sent += 1
        answer = await _called(call, number, message, metadata, self.retries.answer_s_max, due_at)
        self.result.take(answer)
        if self._on_answer is not None:
            self._on_answer(answer)
        return answer


async def _called(
    call: Any, number: int, message: bytes, metadata: tuple[tuple[str, str], ...], answer_s_max: float, due_at: float
) -> Answer:
    try:
        reply = await call(message, metadata=metadata, timeout=answer_s_max)
    except grpc.aio.AioRpcError as error:
        status, details = error.code().value[0], error.details() or ""
        return Answer(number, status, time.perf_counter() - due_at, error=details)
    return Answer(number, _OK, time.perf_counter() - due_at, body=reply)
