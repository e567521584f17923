"""A closed-loop HTTP/1.1 load generator: N connections, one request in flight on each; runs in the caller's process.

A request whose connection breaks is *lost*: it is reported, never sent again, so a caller can hold what was answered
against what a server wrote down. The connection is made anew, with bounded retries.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from tidemill.client.http1 import AnswerReader, BadAnswer, Target, header, header_lines, request_head
from tidemill.client.result import Answer, OnAnswer, Quota, Result, Retries

__all__ = ["Answer", "HeadersOf", "OnAnswer", "Result", "Retries", "header", "run"]

HeadersOf: TypeAlias = Callable[[int], Mapping[str, str]]
"""Number of a request, from 0 -> headers that it alone carries."""

_LOOK_S = 0.25


async def run(
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    in_flight: int,
    requests: int | None = None,
    seconds: float | None = None,
    method: str = "POST",
    headers_of: HeadersOf | None = None,
    on_answer: OnAnswer | None = None,
    retries: Retries | None = None,
) -> Result:
    """Keep `in_flight` requests under way until `requests` were sent or `seconds` are over; all that were sent are
    waited for.

    `on_answer` is called once for each request sent, lost ones included, in the loop: it must be quick. What the
    network does never raises; it is in the result. Raises `InvalidSetting`; an error of a callback ends the run, in an
    `ExceptionGroup`. Cancelling closes every connection.
    """
    target = Target(url)
    quota = Quota(time.perf_counter, in_flight, requests, seconds)
    head = request_head(target, method, headers or {}, len(body))
    load = _Load(head, body, headers_of, on_answer, quota)
    tls = ssl.create_default_context() if target.tls else None
    started = time.perf_counter()
    count = in_flight if requests is None else min(in_flight, requests)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_keep_connected(load, target, tls, retries or Retries()))
    load.result.wall_s = time.perf_counter() - started
    return load.result


class _Load:
    """What the connections of one run share."""

    __slots__ = ("body", "head", "headers_of", "on_answer", "payload", "quota", "result")

    def __init__(
        self, head: bytes, body: bytes, headers_of: HeadersOf | None, on_answer: OnAnswer | None, quota: Quota
    ) -> None:
        self.head = head
        self.body = body
        self.payload = head + b"\r\n" + body
        self.headers_of = headers_of
        self.on_answer = on_answer
        self.quota = quota
        self.result = Result()

    def request(self, number: int) -> bytes:
        if self.headers_of is None:
            return self.payload
        return b"".join((self.head, header_lines(self.headers_of(number)), b"\r\n", self.body))

    def take(self, answer: Answer) -> None:
        self.result.take(answer)
        if self.on_answer is not None:
            self.on_answer(answer)


async def _keep_connected(load: _Load, target: Target, tls: ssl.SSLContext | None, retries: Retries) -> None:
    """One place in flight: connect, ask until the connection ends, connect again."""
    loop = asyncio.get_running_loop()
    failures = 0
    while load.quota.left:
        if failures > retries.attempts_max:
            load.result.gave_up += 1
            return
        if failures:
            await asyncio.sleep(retries.delay_s)
        try:
            async with asyncio.timeout(retries.connect_s_max):
                _, connection = await loop.create_connection(
                    lambda: _Connection(load, loop.create_future()), target.host, target.port, ssl=tls
                )
        except OSError:  # TimeoutError and ssl.SSLError are among them
            load.result.connects_failed += 1
            failures += 1
            continue
        load.result.connects += 1
        await _until_closed(connection, retries.answer_s_max)
        failures = 0 if connection.answered else failures + 1


async def _until_closed(connection: _Connection, answer_s_max: float) -> None:
    """One look at the clock now and then bounds every wait for an answer, at no cost per request."""
    try:
        while not connection.closed.done():
            await asyncio.wait((connection.closed,), timeout=min(_LOOK_S, answer_s_max))
            connection.expire(answer_s_max)
        connection.closed.result()
    finally:
        connection.closed.cancel()
        connection.abort()


class _Connection(asyncio.Protocol):
    """Asks one request after the other. `closed` is set when it is over, with the error of a callback if one raised."""

    def __init__(self, load: _Load, closed: asyncio.Future[None]) -> None:
        self.closed = closed
        self.answered = 0
        self._load = load
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._number: int | None = None
        self._sent_at = 0.0
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases
        self._guarded(self._ask)

    def data_received(self, data: bytes) -> None:
        try:
            whole = self._reader.feed(data)
        except BadAnswer as error:
            self._break_off(f"bad answer: {error}")
            return
        if whole:
            self._guarded(self._take)

    def eof_received(self) -> None:
        if self._number is not None and self._reader.end():
            self._guarded(self._take)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self._lose(self._why or (type(error).__name__ if error else "closed"))
        if not self.closed.done():
            self.closed.set_result(None)

    def expire(self, answer_s_max: float) -> None:
        """Break off when the request under way is older than that."""
        if self._number is not None and time.perf_counter() - self._sent_at > answer_s_max:
            self._break_off("timeout")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        assert self._transport is not None  # noqa: S101 - set by connection_made
        number = self._load.quota.next()
        if number is None:
            self._transport.close()
            return
        payload = self._load.request(number)
        self._number = number
        self._load.result.sent += 1
        self._sent_at = time.perf_counter()
        self._transport.write(payload)

    def _take(self) -> None:
        number, reader = self._number, self._reader
        if number is None:
            self._break_off("an answer that nobody asked for")
            return
        answer = Answer(number, reader.status, time.perf_counter() - self._sent_at, reader.head, reader.body)
        closes = reader.closes
        self.answered += 1
        self._number = None
        reader.reset()
        self._load.take(answer)
        if closes:
            self.abort()
        else:
            self._ask()

    def _lose(self, why: str) -> None:
        if self._number is not None:
            answer = Answer(self._number, None, time.perf_counter() - self._sent_at, error=why)
            self._number = None
            self._guarded(lambda: self._load.take(answer))

    def _break_off(self, why: str) -> None:
        self._why = why
        self.abort()

    def _guarded(self, act: Callable[[], None]) -> None:
        """A caller's callback that raises ends the run with its error, instead of a line in the loop's log."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - any error of a callback; `closed` hands it on to `run`
            self._number = None
            self._load.quota.stopped = True
            if not self.closed.done():
                self.closed.set_exception(error)
            self.abort()
