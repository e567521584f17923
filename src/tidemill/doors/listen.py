"""The HTTP server: uvicorn with limits on header, body and idle time, and a cancelled task for a vanished client.

Runs on the owner's loop. Time-outs cost a request nothing: one sweep over the connections looks at time stamps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import socket
import sys
import time
from collections.abc import Generator, Sized
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tidemill.core.certificates import Renewal
from tidemill.core.errors import HeadersTooLarge, InvalidSetting, MalformedRequest, RequestTooSlow, TidemillError
from tidemill.core.settings import Settings
from tidemill.core.text import short
from tidemill.doors import problems, way
from tidemill.doors.cycle import Cycle, Repeat, repeat_of
from tidemill.doors.entrance import HANDSHAKE, Entrance, Entrances
from tidemill.doors.head import ASGIApp, too_large
from tidemill.doors.relay import Relay, speaks_http2

log = logging.getLogger(__name__)

SWEEPS_PER_TIMEOUT = 4
URLS_REMEMBERED, URL_REMEMBERED_BYTES = 1024, 256
REPEATS_MISSED_MAX = 4
"""A connection whose heads differed so often in a row is looked at no more for one that repeats."""


class Connection(HttpToolsProtocol):
    """One connection. `limits` is set on the class of each server.

    `header_bytes` counts what came of a request whose headers are not complete, `received` all that ever came; the
    other marks belong to the sweep.
    """

    limits: Limits
    cycle: Any  # a `Cycle`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.header_bytes = 0
        self.received = 0
        self.body_bytes = 0
        self.gathered: list[bytes] | None = None
        self.gathered_bytes = self.gathered_max = 0
        self.task: asyncio.Task[None] | None = None
        self.running: Any = None
        self.repeat: Repeat | None = None
        self.repeats_missed = 0
        self.mark: object = None
        self.marked_at = time.monotonic()
        self.body_of: Any = None
        self.body_since = 0.0

    # -- what uvicorn's protocol calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limits.open_count(self.connections) > self.limits.connections_max:
            log.warning("connection closed: %d are open, the most allowed", self.limits.connections_max)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        task = self.task
        if task is not None and not task.done():
            self.running.scope["state"]["gone"] = True
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if not self.received and self._speaks_another(data):
            return
        self.received += len(data)
        before = self.cycle
        if before is not None and before.more_body:
            self._more_of_a_request(before, data)
            return
        if before is not None and not before.response_complete:
            super().data_received(data)
            self.flow.pause_reading()  # what comes behind a whole request waits in the kernel for its answer
            return
        begins = not self.header_bytes
        if begins:
            if self.repeat is not None:
                if self.repeat.fits(data):
                    self._again(self.repeat, data)
                    return
                self.repeats_missed += 1
            if data.find(b"pgrade:", 0, self.limits.header_bytes_max) >= 0:
                data = _without_upgrade(data)
        self.header_bytes += len(data)
        super().data_received(data)
        complete = self.cycle is not before
        if self.header_bytes > self.limits.header_bytes_max and (not complete or self._headers_exceed()):
            self.refuse(
                HeadersTooLarge(f"the headers have more than {self.limits.header_bytes_max} bytes (--header-bytes-max)")
            )
        if complete:
            self.header_bytes = 0
            self.body_bytes = 0
            if begins and self.repeats_missed < REPEATS_MISSED_MAX and not self.pipeline:
                self.repeat = repeat_of(data, self.cycle)

    def _speaks_another(self, data: bytes) -> bool:
        """Whether a connection begins otherwise than HTTP/1.1 does; then it is seen to."""
        if speaks_http2(data):
            self.connections.discard(self)
            self.limits.relay.take(self.transport, data)
            return True
        if data[0] == HANDSHAKE:
            self.refuse(MalformedRequest("this port speaks HTTP in the clear; ask it with http://"))
            return True
        return False

    def _again(self, repeat: Repeat, data: bytes) -> None:
        """A request like the one before, but for its body."""
        self.repeats_missed = 0
        scope = repeat.scope.copy()
        scope["state"] = self.app_state.copy()
        self.cycle = cycle = Cycle(self, scope, keep_alive=True)
        cycle.body = data[len(repeat.head) :]  # type: ignore[assignment]
        cycle.more_body = False
        self._start_asgi_task(cycle, self.app)

    def _more_of_a_request(self, cycle: Any, data: bytes) -> None:
        """Body, chunks' frames and trailers: bounded together, also when the answer has gone out before them."""
        self.body_bytes += len(data)
        super().data_received(data)
        if self.body_bytes > self.limits.request_bytes_max and cycle.more_body:
            self.refuse(too_large(self.body_bytes, self.limits.request_bytes_max))

    def on_body(self, body: bytes) -> None:
        if self.gathered is None:
            cycle = self.cycle
            if not cycle.response_complete:
                cycle.body += body
                if len(cycle.body) > HIGH_WATER_LIMIT:
                    self.flow.pause_reading()
                cycle.wake()
            return
        self.gathered.append(body)
        self.gathered_bytes += len(body)
        if self.gathered_bytes > self.gathered_max:
            self.cycle.wake()

    def on_message_complete(self) -> None:
        self.gathered = None  # what comes next is another request's
        self.cycle.more_body = False  # also where the rest of a body comes after its answer
        self.cycle.wake()

    def on_headers_complete(self) -> None:
        """What uvicorn does, but for what is the same for each request to one address."""
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        url = self.url
        scope["path"], scope["raw_path"], scope["query_string"] = (
            _parts_remembered(url) if len(url) <= URL_REMEMBERED_BYTES else _parts(url)
        )
        before = self.cycle
        keep_alive = version != "1.0" and parser.should_keep_alive()
        self.cycle = cycle = Cycle(self, scope, keep_alive, self.expect_100_continue)
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_response_complete(self) -> None:
        """What uvicorn does, but for its timer: the sweep closes an idle connection."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        scope = cycle.scope
        scope["tidemill.connection"] = self
        self.headers = []  # trailers are no headers: what comes after the body goes here, and nowhere
        self.running = cycle
        self.task = task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def send_400_response(self, msg: str) -> None:
        """What the parser could not read. uvicorn calls this while it handles what the parser raised, which tells
        more than `msg` does."""
        error = sys.exc_info()[1]
        told = str(error) if isinstance(error, httptools.HttpParserError) else ""
        self.refuse(MalformedRequest(f"this is not HTTP/1.1: {short(told) if told else msg}"))

    # -- the short way of the hot routes -------------------------------------------------------------------------------

    def body_now(self) -> bytes | None:
        """The whole body of the running request when all of it is here, else None: `receive` brings it then."""
        cycle = self.running
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()  # bytes of a repeated request are the very same
        return body

    async def body_whole(self, bytes_max: int) -> bytes:
        """The whole body of the running request, once it is here. Raises `RequestTooLarge` as soon as it is.

        What `receive` does, but for its wake-up and its copy for each piece that comes.
        """
        cycle = self.running
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        parts = self.gathered = [bytes(cycle.body)]
        self.gathered_bytes, self.gathered_max = len(cycle.body), bytes_max
        cycle.body = bytearray()
        try:
            while cycle.more_body and not cycle.disconnected and self.gathered_bytes <= bytes_max:
                cycle.message_event.clear()
                self.flow.resume_reading()
                await cycle.message_event.wait()
        finally:
            self.gathered = None
        if self.gathered_bytes > bytes_max:
            raise too_large(self.gathered_bytes, bytes_max)
        return b"".join(parts)

    def reply_now(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Answer the running request whole and in one write, content-length added; False where `send` has to wait.

        What `send` does for start and body, without its look for line breaks: our headers hold none.
        """
        cycle = self.running
        if self.flow.write_paused or cycle.disconnected or cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if cycle.waiting_for_100_continue:
            cycle.keep_alive = False  # whether the body will come is the client's to choose, and ours not to know
        parts = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if name == b"connection":
                cycle.keep_alive = False
                continue
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), body)
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"".join(parts))
        cycle.response_complete = True
        cycle.wake()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    # -- limits --------------------------------------------------------------------------------------------------------

    def refuse(self, error: TidemillError) -> None:
        """Answer with `error` where the answer has not begun, and hang up."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        answered = cycle is not None and cycle.response_complete and cycle.more_body
        begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if not begun and not answered:
            status, headers, body = problems.reply(error)
            headers = [each for each in headers if each[0] != b"connection"]
            headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            headers.append((b"x-request-id", self._request_id()))
            lines = [name + b": " + value + b"\r\n" for name, value in headers]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.limits.refused(error.code)
        self.transport.close()

    def _request_id(self) -> bytes:
        """The caller's own where a head came with one, else a fresh one."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            for name, value in cycle.scope["headers"]:
                if name == b"x-request-id" and value:
                    with contextlib.suppress(MalformedRequest):
                        return way.checked_request_id(value.decode("latin-1")).encode()
        return way.fresh_request_id().encode()

    def check_time(self, now: float) -> None:
        """Hang up on one that was silent for too long where it was to speak, or deaf where it was to listen.

        Called by the sweep. A connection's state is compared with what the last sweep saw; nothing is stamped while
        requests pass. Dripped headers make no progress: only a complete head does.
        """
        limits, cycle = self.limits, self.cycle
        if self._body_takes_too_long(now):
            limit_s = limits.body_timeout_s
            self.refuse(RequestTooSlow(f"the body did not arrive within {limit_s:g} s (--body-timeout-ms)"))
            return
        if self.flow.write_paused:
            mark, limit_s = ("deaf", self.transport.get_write_buffer_size()), limits.body_idle_s
        elif cycle is None or (cycle.response_complete and not cycle.more_body):
            idle = cycle is not None and not self.header_bytes
            mark = ("idle" if idle else "headers", self.received - self.header_bytes)
            limit_s = limits.keep_alive_s if idle else limits.header_timeout_s
        elif cycle.more_body:
            mark, limit_s = ("body", self.received), limits.body_idle_s
        else:
            mark, limit_s = ("answer", id(cycle)), math.inf
        if mark != self.mark:
            self.mark, self.marked_at = mark, now
        elif now - self.marked_at > limit_s:
            if mark[0] == "deaf":
                self.transport.abort()
            elif mark[0] == "idle":
                self.transport.close()
            elif mark[0] == "body":
                self.refuse(RequestTooSlow(f"nothing of the body arrived for {limit_s:g} s"))
            else:
                self.refuse(RequestTooSlow(f"the headers did not arrive within {limit_s:g} s"))

    def _body_takes_too_long(self, now: float) -> bool:
        """One that drips makes progress for ever: `body_since` is when the sweep first saw that of `body_of` on its
        way."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body:
            self.body_of = None
            return False
        if self.body_of is not cycle:
            self.body_of, self.body_since = cycle, now
        return now - self.body_since > self.limits.body_timeout_s

    def _headers_exceed(self) -> bool:
        """Measured exactly, for what came in one piece with some of its body."""
        headers = self.cycle.scope["headers"]
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
        return size > self.limits.header_bytes_max


def _parts(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query. Raises `httptools.HttpParserInvalidURLError`."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


_parts_remembered = lru_cache(URLS_REMEMBERED)(_parts)


_UPGRADE = re.compile(rb"(?i)(\r\n)(upgrade:)")


def _without_upgrade(data: bytes) -> bytes:
    """A request that offers another protocol is answered in this one (RFC 9110, 7.8): the offer is hidden from the
    parser, which would take the body for the other protocol."""
    head, end, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\1x-\2", head) + end + body


class Limits:
    """What a connection may do, where its refusals are counted, and where it goes when it speaks gRPC."""

    def __init__(self, settings: Settings, failures: dict[str, int], renewal: Renewal | None) -> None:
        self.relay = Relay()
        self.header_bytes_max = settings.header_bytes_max
        self.header_timeout_s = settings.header_timeout_ms / 1000
        # Twice: chunks come with frames. The body itself is held against `body_bytes_max` by its reader.
        self.request_bytes_max = 2 * settings.body_bytes_max + settings.header_bytes_max
        self.body_idle_s = settings.body_idle_ms / 1000
        self.body_timeout_s = settings.body_timeout_ms / 1000
        self.keep_alive_s = settings.keep_alive_ms / 1000
        self.connections_max = settings.connections_max
        self._failures = failures
        self.entrances = None if renewal is None else Entrances(renewal, self.header_timeout_s, self.refused)

    def refused(self, code: str) -> None:
        self._failures[code] = self._failures.get(code, 0) + 1

    def open_count(self, connections: Sized) -> int:
        """HTTP's own, those passed on, and those on their way to TLS."""
        return len(connections) + len(self.relay.ends) + (len(self.entrances.open) if self.entrances else 0)

    def protocol(self, inner: type[Connection]) -> Any:
        """What uvicorn makes of each connection: `inner`, behind an entrance where there is TLS."""
        entrances = self.entrances
        if entrances is None:
            return inner

        def entrance(server_state: Any, **rest: Any) -> Entrance:
            return Entrance(
                entrances,
                lambda: inner(server_state=server_state, **rest),
                lambda: self.open_count(server_state.connections) > self.connections_max,
            )

        return entrance


class HttpServer(uvicorn.Server):
    """Serves until `should_exit`; leaves signals to the owner."""

    def __init__(
        self, app: ASGIApp, settings: Settings, failures: dict[str, int], renewal: Renewal | None = None
    ) -> None:
        """Speaks TLS with the certificates of `renewal`, in the clear without."""
        self._limits = limits = Limits(settings, failures, renewal)
        self.relay = limits.relay
        protocol = limits.protocol(type("LimitedConnection", (Connection,), {"limits": limits}))
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                proxy_headers=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=settings.drain_ms / 1000,  # type: ignore[arg-type] # whole seconds, it says
                backlog=2048,
            )
        )
        shortest_s = min(limits.header_timeout_s, limits.body_idle_s, limits.body_timeout_s, limits.keep_alive_s)
        self._sweep_s = max(0.01, shortest_s / SWEEPS_PER_TIMEOUT)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    @property
    def connection_count(self) -> int:
        return self._limits.open_count(self.server_state.connections)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._limits.entrances is not None:
            self._limits.entrances.close()
        await super().shutdown(sockets)

    async def sweep(self) -> None:
        """Runs beside `serve`, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check_time(now)
            if self._limits.entrances is not None:
                self._limits.entrances.check_time(now)


def bind(host: str, port: int, flag: str, *, shared: bool = False) -> socket.socket:
    """A listening address of our own; where it is `shared`, others of this user may join it with `share_port`.

    Raises `InvalidSetting` when it is taken or not ours to take.
    """
    if shared and port:
        bind(host, port, flag).close()  # nobody else is there
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidSetting(f"--host {host} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            share_port(listener)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InvalidSetting(
            f"{host}:{port} cannot be listened on: {error.strerror}; choose another with {flag}"
        ) from error
    listener.setblocking(False)
    return listener


def share_port(listener: socket.socket) -> None:
    """Let several sockets of this service have the same address; the kernel shares connections out to those that
    listen."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
