"""The HTTP server: uvicorn with limits on header, body and idle time, and a cancelled task for a vanished client.

Runs on the owner's loop. Time-outs cost a request nothing: one sweep over the connections looks at time stamps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Generator
from enum import Enum
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tidemill.core.errors import HeadersTooLarge, InvalidSetting, MalformedRequest, RequestTooSlow, TidemillError
from tidemill.core.settings import Settings
from tidemill.doors import problems
from tidemill.doors.head import ASGIApp

log = logging.getLogger(__name__)

SWEEPS_PER_TIMEOUT = 4


class Phase(Enum):
    """Where a connection is: nothing of a request yet, in its headers, in its body, or waiting for the answer."""

    IDLE = 0
    HEADERS = 1
    BODY = 2
    ANSWER = 3


class Connection(HttpToolsProtocol):
    """One connection. `limits` is set on the class of each server."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.phase = Phase.HEADERS  # a connection that says nothing is as slow as one that drips
        self.since = time.monotonic()
        self.header_bytes = 0
        self.task: asyncio.Task[None] | None = None

    # -- what uvicorn's protocol calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            log.warning("connection closed: %d are open, the most allowed", self.limits.connections_max)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        task = self.task
        if task is not None and not task.done():
            self.cycle.scope["state"]["gone"] = True
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.HEADERS or self.phase is Phase.IDLE:
            if self.phase is Phase.IDLE:
                self.phase = Phase.HEADERS
                self.since = time.monotonic()  # of the first byte: dripping does not buy time
            self.header_bytes += len(data)
            super().data_received(data)
            # Headers that are complete by now came with some of their body, and are measured exactly below.
            if self.phase is Phase.HEADERS and self.header_bytes > self.limits.header_bytes_max:
                self.refuse(self._headers_too_large())
        else:
            self.since = time.monotonic()
            super().data_received(data)

    def on_headers_complete(self) -> None:
        if self.header_bytes > self.limits.header_bytes_max:
            exact = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if exact > self.limits.header_bytes_max:
                self.refuse(self._headers_too_large())
                raise _Refused  # stops the parser; the answer is written
        self.phase = Phase.BODY
        self.since = time.monotonic()
        self.header_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.phase = Phase.ANSWER

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.phase is Phase.ANSWER:
            self.phase = Phase.IDLE
        self.since = time.monotonic()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.since = time.monotonic()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        self.task = task
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def send_400_response(self, msg: str) -> None:
        """What the parser could not read, or what we would not (`refuse` has answered then)."""
        if not self.transport.is_closing():
            self.refuse(MalformedRequest(f"this is not HTTP/1.1: {msg}"))

    # -- ours ----------------------------------------------------------------------------------------------------------

    def refuse(self, error: TidemillError) -> None:
        """Answer with `error` where the answer has not begun, and hang up."""
        if self.transport.is_closing():
            return
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not begun:
            status, headers, body = problems.reply(error)
            headers = [each for each in headers if each[0] != b"connection"]
            headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            lines = [name + b": " + value + b"\r\n" for name, value in headers]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.limits.refused(error.code)
        self.transport.close()

    def check_time(self, now: float) -> None:
        """Hang up on one that was silent for too long where it was to speak, or deaf where it was to listen."""
        limits = self.limits
        silent_s = now - self.since
        if self.phase is Phase.HEADERS and silent_s > limits.header_timeout_s:
            self.refuse(RequestTooSlow(f"the headers did not arrive within {limits.header_timeout_s:g} s"))
        elif self.phase is Phase.BODY and silent_s > limits.body_idle_s:
            self.refuse(RequestTooSlow(f"nothing of the body arrived for {limits.body_idle_s:g} s"))
        elif self.flow is not None and self.flow.write_paused and silent_s > limits.body_idle_s:
            self.transport.abort()

    def _headers_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"the headers have more than {self.limits.header_bytes_max} bytes (--header-bytes-max)")


class _Refused(Exception):
    """Thrown through the parser, which then reports an unreadable request."""


class Limits:
    """What a connection may do, and where its refusals are counted."""

    def __init__(self, settings: Settings, failures: dict[str, int]) -> None:
        self.header_bytes_max = settings.header_bytes_max
        self.header_timeout_s = settings.header_timeout_ms / 1000
        self.body_idle_s = settings.body_idle_ms / 1000
        self.connections_max = settings.connections_max
        self._failures = failures

    def refused(self, code: str) -> None:
        self._failures[code] = self._failures.get(code, 0) + 1


class HttpServer(uvicorn.Server):
    """Serves until `should_exit`; leaves signals to the owner."""

    def __init__(self, app: ASGIApp, settings: Settings, failures: dict[str, int]) -> None:
        limits = Limits(settings, failures)
        protocol = type("LimitedConnection", (Connection,), {"limits": limits})
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                http=protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                proxy_headers=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_ms / 1000,  # type: ignore[arg-type]
                timeout_graceful_shutdown=max(1, settings.drain_ms // 1000),
                backlog=2048,
            )
        )
        self._sweep_s = max(0.01, min(limits.header_timeout_s, limits.body_idle_s) / SWEEPS_PER_TIMEOUT)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    @property
    def connection_count(self) -> int:
        return len(self.server_state.connections)

    async def sweep(self) -> None:
        """Runs beside `serve`, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check_time(now)


def bind(host: str, port: int, flag: str) -> socket.socket:
    """A listening address of our own. Raises `InvalidSetting` when it is taken or not ours to take."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidSetting(f"--host {host} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InvalidSetting(f"{host}:{port} cannot be listened on: {error.strerror}; choose another with {flag}") from error
    listener.setblocking(False)
    return listener
