"""One connection of an HTTP load: asks, reads the answer, connects again; runs in the caller's process.

When to ask is the load's to say: one after the other (`load.py`), or when its time has come (`load_open.py`).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from tidemill.client.http1 import AnswerReader, BadAnswer, Target, header_lines, request_head
from tidemill.client.result import Answer, OnAnswer, Result, Retries

HeadersOf: TypeAlias = Callable[[int], Mapping[str, str]]
"""Number of a request, from 0 -> headers that it alone carries."""

Bodies: TypeAlias = bytes | Sequence[bytes]
"""One body for every request, or several that are sent in turn."""

EVENT = b"data: "
"""With what the first event of a stream begins; signs of life before it are comments."""

_LOOK_S = 0.25


class Load(ABC):
    """What the connections of one run share. A kind of load says with `next` whose turn it is."""

    def __init__(
        self,
        target: Target,
        bodies: Bodies,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        headers_of: HeadersOf | None = None,
        on_answer: OnAnswer | None = None,
        retries: Retries | None = None,
        streamed: bool = False,
    ) -> None:
        several = [bodies] if isinstance(bodies, bytes) else list(bodies)
        heads = [request_head(target, method, headers, len(body)) for body in several]
        self.target = target
        self.tls = ssl.create_default_context() if target.tls else None
        self.retries = retries or Retries()
        self.result = Result()
        self.stopped = False
        self.streamed = streamed
        self._parts = list(zip(heads, several, strict=True))
        self._payloads = [head + b"\r\n" + body for head, body in self._parts]
        self._headers_of = headers_of
        self._on_answer = on_answer

    @property
    @abstractmethod
    def left(self) -> bool:
        """Whether there is, or will be, something to ask."""

    @abstractmethod
    def next(self) -> tuple[int, float | None] | None:
        """The number of the request to send now, and since when it has been due (None: since it is sent)."""

    def parks(self, connection: Connection) -> bool:
        """Whether a connection with nothing to ask stays open until its `ask` is called."""
        return False

    def gone(self, connection: Connection) -> None:  # noqa: B027 - for those who want to know
        """A connection has ended."""

    def request(self, number: int) -> bytes:
        which = number % len(self._payloads)
        if self._headers_of is None:
            return self._payloads[which]
        head, body = self._parts[which]
        return b"".join((head, header_lines(self._headers_of(number)), b"\r\n", body))

    def take(self, answer: Answer) -> None:
        self.result.take(answer)
        if self._on_answer is not None:
            self._on_answer(answer)

    async def keep_connected(self) -> None:
        """One place in flight: connect, ask until the connection ends, connect again."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self.left:
            if failures > self.retries.attempts_max:
                self.result.gave_up += 1
                return
            if failures:
                await asyncio.sleep(self.retries.delay_s)
            try:
                async with asyncio.timeout(self.retries.connect_s_max):
                    _, connection = await loop.create_connection(
                        lambda: Connection(self, loop.create_future()), self.target.host, self.target.port, ssl=self.tls
                    )
            except OSError:  # TimeoutError and ssl.SSLError are among them
                self.result.connects_failed += 1
                failures += 1
                continue
            self.result.connects += 1
            await _until_closed(connection, self.retries.answer_s_max)
            failures = 0 if connection.answered else failures + 1


async def _until_closed(connection: Connection, answer_s_max: float) -> None:
    """One look at the clock now and then bounds every wait for an answer, at no cost per request."""
    try:
        while not connection.closed.done():
            await asyncio.wait((connection.closed,), timeout=min(_LOOK_S, answer_s_max))
            connection.expire(answer_s_max)
        connection.closed.result()
    finally:
        connection.closed.cancel()
        connection.abort()


class Connection(asyncio.Protocol):
    """Asks one request after the other. `closed` is set when it is over, with the error of a callback if one raised."""

    def __init__(self, load: Load, closed: asyncio.Future[None]) -> None:
        self.closed = closed
        self.answered = 0
        self._load = load
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._number: int | None = None
        self._sent_at = 0.0
        self._due_at = 0.0
        self._first_at = 0.0
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases
        self.ask()

    def data_received(self, data: bytes) -> None:
        if self._load.streamed and not self._first_at and EVENT in data:
            self._first_at = time.perf_counter()
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
        self._load.gone(self)
        if not self.closed.done():
            self._lose(self._why or (type(error).__name__ if error else "closed"))
        if not self.closed.done():
            self.closed.set_result(None)

    def expire(self, answer_s_max: float) -> None:
        """Break off when the request under way is older than that."""
        if self._number is not None and time.perf_counter() - self._sent_at > answer_s_max:
            self._break_off("timeout")

    def ask(self) -> None:
        """Send what is to be sent now; where there is nothing, wait to be called again, or close."""
        self._guarded(self._ask)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        assert self._transport is not None  # noqa: S101 - set by connection_made
        turn = None if self._load.stopped else self._load.next()
        if turn is None:
            if not self._load.parks(self):
                self._transport.close()
            return
        number, due_at = turn
        payload = self._load.request(number)
        self._number = number
        self._load.result.sent += 1
        self._sent_at = time.perf_counter()
        self._due_at = self._sent_at if due_at is None else due_at
        self._first_at = 0.0
        self._transport.write(payload)

    def _take(self) -> None:
        number, reader = self._number, self._reader
        if number is None:
            self._break_off("an answer that nobody asked for")
            return
        first_s = self._first_at - self._due_at if self._first_at else None
        spent_s = time.perf_counter() - self._due_at
        answer = Answer(number, reader.status, spent_s, reader.head, reader.body, first_s=first_s)
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
            answer = Answer(self._number, None, time.perf_counter() - self._due_at, error=why)
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
            self._load.stopped = True
            if not self.closed.done():
                self.closed.set_exception(error)
            self.abort()
