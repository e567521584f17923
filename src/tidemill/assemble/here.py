"""HTTP and gRPC served by the owner process itself, on its own loop: what there is without fronts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tidemill.assemble.inside import Inside
from tidemill.core.certificates import Renewal
from tidemill.core.settings import Settings
from tidemill.doors import grpc_server
from tidemill.doors.head import ASGIApp
from tidemill.doors.listen import HttpServer
from tidemill.observe.metrics import FrontSample
from tidemill.serve.answer import Service

HTTP_STOP_S = 5.0
"""What closing connections may take on top of the drain."""


class Entry(Protocol):
    """How requests come in. Life: `start`, `ended` while they do, `drain` once."""

    async def start(self) -> None:
        """Begin to take requests. Raises `InvalidSetting`."""

    async def ready(self) -> None:
        """Return when all of it takes requests."""

    async def ended(self) -> None:
        """Return when it has ended by itself, which it should not."""

    async def drain(self) -> None:
        """Take nothing new, finish what runs within `drain_ms`, and end."""

    def keys_changed(self) -> None: ...

    @property
    def grpc_port(self) -> int:
        """0 until it is known."""

    @property
    def connection_count(self) -> int: ...

    def sample(self) -> Sequence[FrontSample]: ...


class Here:
    """`Entry` within the owner."""

    def __init__(
        self,
        service: Service,
        app: ASGIApp,
        settings: Settings,
        listeners: Sequence[socket.socket],
        is_ready: Callable[[], bool],
        renewal: Renewal | None,
        inside: Inside | None,
    ) -> None:
        """`renewal` and `inside` are there under TLS."""
        self._service = service
        self._settings = settings
        self._listeners = listeners
        self._is_ready = is_ready
        self._renewal = renewal
        self._inside = inside
        self._http = HttpServer(app, settings, service.failures, renewal)
        self._serving: asyncio.Task[None] | None = None
        self._grpc: Any = None
        self._grpc_port = 0

    async def start(self) -> None:
        settings, inside = self._settings, self._inside
        self._serving = asyncio.create_task(self._http.serve(sockets=list(self._listeners)))
        self._sweeping = asyncio.create_task(self._http.sweep())
        self._grpc, self._grpc_port = await grpc_server.start(
            self._service,
            settings.grpc_host or settings.host,
            settings.grpc_port,
            settings,
            self._is_ready,
            self._renewal,
            None if inside is None else inside.grpc,
        )
        if inside is None:
            self._http.relay.to(settings.grpc_host or settings.host, self._grpc_port)
        else:
            self._http.relay.to_path(inside.grpc)

    async def ready(self) -> None:
        return

    async def ended(self) -> None:
        if self._serving is not None:
            await asyncio.wait([self._serving])

    async def drain(self) -> None:
        """Both servers at once; nothing, where something before `start` failed."""
        if self._serving is None:
            return
        drain_s = self._settings.drain_ms / 1000
        self._http.should_exit = True
        ending = [asyncio.wait_for(self._serving, drain_s + HTTP_STOP_S)]
        if self._grpc is not None:
            ending.append(self._grpc.stop(drain_s))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.gather(*ending)
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)

    def keys_changed(self) -> None:
        return

    @property
    def grpc_port(self) -> int:
        return self._grpc_port

    @property
    def connection_count(self) -> int:
        return self._http.connection_count

    def sample(self) -> Sequence[FrontSample]:
        return ()
