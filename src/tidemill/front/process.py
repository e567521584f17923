"""A front process from its first frame to its last: linked to the owner, told what it is, serving until told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from tidemill import __version__
from tidemill.account.keys import Keys, Open
from tidemill.core import certificates, registry
from tidemill.core.collector import quieten_collector
from tidemill.core.settings import Settings, from_plain
from tidemill.deploy.mirror import Mirror, Refusals
from tidemill.deploy.remote import RemoteFleet
from tidemill.doors import forward, grpc_forward, grpc_server
from tidemill.doors.hot import Doors
from tidemill.doors.listen import HttpServer
from tidemill.front.service import FrontService
from tidemill.observe import log as logs
from tidemill.store import accounts, database
from tidemill.wire.frames import Frame, FrameError
from tidemill.wire.messages import (
    Failures,
    Ready,
    Report,
    Table,
    Topic,
    Welcome,
    encode,
    read_table,
    read_welcome,
)
from tidemill.wire.peer import Asked, Bounds, Peer, open_peer

log = logging.getLogger(__name__)

REPORT_S: Final = 0.5
END_S_MAX: Final = 0.5
"""What callers' last answers may take to be written once the owner is gone."""


class Owner:
    """`wire.peer.Handler` of a front: what the owner has told."""

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.refusals = Refusals()
        self.peer: Peer | None = None
        self.mirror = Mirror(self.refusals, self._release)
        self.welcome: asyncio.Future[Welcome] = loop.create_future()
        self.table = asyncio.Event()
        self.end = asyncio.Event()
        self.host = ""
        self.inside = ""
        self.keys: Keys | Open = Open()
        self.server: HttpServer | None = None

    def asked(self, stream: Asked, frame: Frame) -> None:
        raise FrameError("the owner asks nothing of a front")

    def told(self, frame: Frame) -> None:
        topic = frame.topic
        if topic == Topic.TABLE:
            self._show(read_table(frame.header))
        elif topic == Topic.KEYS:
            self._refresh()
        elif topic == Topic.WELCOME:
            self.welcome.set_result(read_welcome(frame.header))
        elif topic == Topic.DRAIN:
            self.end.set()
        else:
            raise FrameError(f"the owner told something about topic {topic}")

    def lost(self) -> None:
        self.mirror.draining = True
        self.end.set()
        if not self.welcome.done():
            self.welcome.cancel()

    def _release(self, serial: int) -> None:
        """No request holds that model any more; from whatever thread let go last."""
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._tell_release, serial)

    def _tell_release(self, serial: int) -> None:
        if self.peer is not None:
            self.peer.tell(int(Topic.RELEASE), encode(serial))

    def _show(self, table: Table) -> None:
        self.mirror.show(table)
        self.table.set()
        self.relay()

    def relay(self) -> None:
        """Pass connections that speak HTTP/2 on to where gRPC is answered now."""
        if self.server is None or not self.mirror.grpc_port:
            return
        if self.inside:
            self.server.relay.to_path(Path(self.inside))
        else:
            self.server.relay.to(self.host, self.mirror.grpc_port)

    def _refresh(self) -> None:
        try:
            self.keys.refresh()
        except database.DatabaseError as error:
            log.warning("keys could not be read again: %s", error)


async def run(link: socket.socket, bounds: Bounds, listeners: Sequence[socket.socket]) -> None:
    """Serve HTTP on `listeners`, or gRPC where there are none, until the owner says so or is gone."""
    owner = Owner()
    owner.peer = peer = await open_peer(link, bounds, owner)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, owner.end.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # from a terminal it reaches the owner too, which decides
    try:
        welcome = await owner.welcome
    except asyncio.CancelledError:
        return  # the owner is gone before it had said anything
    settings = from_plain(welcome.settings)
    owner.host, owner.inside = settings.grpc_host or settings.host, welcome.inside
    logs.set_up(settings.log_format, settings.log_level)
    traces = registry.load("trace.otlp")(settings, __version__) if settings.otlp_endpoint else None
    front = Front(owner, peer, settings, welcome)
    await owner.table.wait()
    try:
        await (front.serve_http(listeners) if listeners else front.serve_grpc())
    finally:
        front.close()
        if traces is not None:
            traces.close()


class Front:
    """One front: what it serves with, and what it reports."""

    def __init__(self, owner: Owner, peer: Peer, settings: Settings, welcome: Welcome) -> None:
        self._owner = owner
        self._peer = peer
        self._settings = settings
        self._welcome = welcome
        self._process = psutil.Process()
        self._reader: database.Connection | None = None
        if not settings.no_auth:
            self._reader = reader = database.connect(settings.data_dir)
            owner.keys = Keys(lambda: accounts.epoch(reader), lambda: accounts.all_keys(reader))
        paths = certificates.paths_of(settings)
        self._renewal = None if paths is None else certificates.Renewal(paths)
        self.service = FrontService(owner.keys, owner.mirror, RemoteFleet(owner.mirror, peer))

    async def serve_http(self, listeners: Sequence[socket.socket]) -> None:
        settings, owner, service = self._settings, self._owner, self.service
        onward = forward.Forward(self._peer, owner.keys, settings.body_bytes_max, self.report)
        doors = Doors(service, onward, settings)
        owner.server = server = HttpServer(doors, settings, service.failures, self._renewal)
        owner.relay()
        serving = asyncio.create_task(server.serve(sockets=list(listeners)))
        beside = [asyncio.create_task(each) for each in (server.sweep(), self._report(), self._renew())]
        self._peer.tell(int(Topic.READY), encode(Ready()))
        self.report()
        quieten_collector()
        await self._until_end(serving)
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, END_S_MAX if self._peer.lost else None)
        await self._ended(beside)

    async def serve_grpc(self) -> None:
        settings, owner = self._settings, self._owner

        def wrap(methods: grpc_forward.Handlers) -> grpc_forward.Handlers:
            return (grpc_forward.Forward(methods, self._peer),)

        port = self._welcome.grpc_port or settings.grpc_port
        server, bound = await grpc_server.start(
            self.service,
            settings.grpc_host or settings.host,
            port,
            settings,
            lambda: owner.mirror.ready,
            self._renewal,
            Path(self._welcome.inside) if self._welcome.inside else None,
            wrap,
        )
        beside = [asyncio.create_task(each) for each in (self._report(), self._renew())]
        self._peer.tell(int(Topic.READY), encode(Ready(bound)))
        self.report()
        quieten_collector()
        await owner.end.wait()
        await server.stop(END_S_MAX if self._peer.lost else settings.drain_ms / 1000)
        await self._ended(beside)

    def report(self) -> None:
        """Tell the owner what was counted since it was told last."""
        if self._peer.lost:
            return
        failures = self.service.failures
        told = [Failures("", 0, code, count) for code, count in failures.items()]
        failures.clear()
        with self._process.oneshot():
            times = self._process.cpu_times()
            resident = self._process.memory_info().rss
        server = self._owner.server
        connections = 0 if server is None else server.connection_count
        counted = (*told, *self._owner.refusals.take())
        self._peer.tell(int(Topic.REPORT), encode(Report(connections, times.user + times.system, resident, counted)))

    def close(self) -> None:
        self._peer.close()
        if self._reader is not None:
            self._reader.close()

    async def _until_end(self, serving: asyncio.Task[None]) -> None:
        ending = asyncio.create_task(self._owner.end.wait())
        await asyncio.wait([ending, serving], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self.report()

    async def _renew(self) -> None:
        while self._renewal is not None:
            await asyncio.sleep(certificates.LOOK_S)
            self._renewal.look()

    async def _ended(self, beside: Sequence[asyncio.Task[Any]]) -> None:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        self.report()
