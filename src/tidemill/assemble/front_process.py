"""One front process as the owner sees it: started, linked, counted, restarted; belongs to the owner's loop.

Life: `run` starts it and starts it again with growing pauses, until `drain`; `kill` ends what did not end by itself. A
front is reached over a pair of sockets that it inherits: there is no address that anybody else could reach.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from tidemill.assemble.link import Behind, Link
from tidemill.core.contracts import Served
from tidemill.core.errors import ServiceError
from tidemill.core.settings import Settings, to_plain
from tidemill.observe.metrics import FrontSample
from tidemill.wire.child import ending, reap, spawn
from tidemill.wire.messages import Ready, Report, Topic, Welcome, encode
from tidemill.wire.peer import Bounds, Peer, open_peer

log = logging.getLogger(__name__)

RESTART_S_MIN: Final = 0.05
STEADY_S: Final = 10.0
"""A front that lived so long starts again without a pause."""
START_TRIES: Final = 5
"""A front that ended so often before it first listened will not listen."""

Listeners = Callable[[], Sequence[socket.socket]]
"""Fresh listening sockets for one start of a front; they are closed here once it has them."""
Greet: TypeAlias = Callable[["FrontProcess"], None]


class FrontProcess:
    """`connections`, `cpu_s` and `rss_bytes` are those of the last report of the process that runs now."""

    def __init__(self, name: str, behind: Behind, settings: Settings, listeners: Listeners) -> None:
        self.name = name
        self.restarts = 0
        self.grpc_port = 0
        self.up = False
        self.peer: Peer | None = None
        self.report = Report(0, 0.0, 0, ())
        self.reported_at = time.monotonic()
        self._behind = behind
        self._held: dict[int, Served] = {}
        self._found: dict[tuple[str, int], Served] = {}
        self._settings = settings
        self._listeners = listeners
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draining = False

    async def run(self, greet: Greet) -> None:
        """Keep it running. `greet` tells one that has just been linked what it must know."""
        pause_s = RESTART_S_MIN
        while not self._draining:
            started_at = time.monotonic()
            try:
                await self._start(greet)
            except OSError as error:
                log.error("front %s cannot be started: %s", self.name, error)
            else:
                await self._ended.wait()
                await reap(self._process)
            if self._is_draining():
                return
            self.restarts += 1
            if not self._first.done() and self.restarts >= START_TRIES:
                self._first.set_exception(
                    ServiceError(f"front {self.name} does not start: {self._told()}; what it logged tells why")
                )
                return
            pause_s = RESTART_S_MIN if time.monotonic() - started_at > STEADY_S else pause_s
            log.error(
                "front %s has ended (%s); it is started again",
                self.name,
                self._told(),
                extra={"pause_s": pause_s},
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._settings.front_restart_ms_max / 1000)

    async def first(self) -> None:
        """Return when it has listened for the first time. Raises `ServiceError` when it will not."""
        await asyncio.shield(self._first)

    def sample(self) -> FrontSample:
        told = self.report
        return FrontSample(self.name, self.up, self.restarts, told.connections, told.cpu_s, told.rss_bytes)

    def drain(self) -> None:
        """Tell it to finish what runs and to end; it is not started again."""
        self._draining = True
        if self.peer is not None:
            self.peer.tell(int(Topic.DRAIN))

    async def ended(self) -> None:
        """Return when its process has ended."""
        await self._ended.wait()
        await reap(self._process)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            log.warning("front %s does not end; it is killed", self.name)
            self._process.kill()

    # -- `link.Listener` -----------------------------------------------------------------------------------------------

    def ready(self, ready: Ready) -> None:
        self.grpc_port = ready.grpc_port
        self.up = True
        if not self._first.done():
            self._first.set_result(None)
        self._behind.publish()

    def reported(self, report: Report) -> None:
        self.report = report
        self.reported_at = time.monotonic()
        self._behind.count(report.failures)

    def show(self, table: bytes, serving: Mapping[int, Served]) -> None:
        """Tell it what is served. What it was told of is held for it until it says that no request holds it there."""
        if self.peer is None:
            return
        self._held.update(serving)
        self._found.update({(each.name, each.version): each for each in serving.values()})
        self.peer.tell(int(Topic.TABLE), table)

    def released(self, serial: int) -> None:
        served = self._held.pop(serial, None)
        if served is not None and self._found.get((served.name, served.version)) is served:
            del self._found[served.name, served.version]

    def served(self, name: str, version: int) -> Served:
        found = self._found.get((name, version))
        return self._behind.find(name, version) if found is None else found

    def lost(self) -> None:
        self._held.clear()
        self._found.clear()
        self.up = False
        self.peer = None
        self.report = Report(0, self.report.cpu_s, 0, ())
        self._ended.set()

    # -- one start -----------------------------------------------------------------------------------------------------

    async def _start(self, greet: Greet) -> None:
        settings = self._settings
        self._ended.clear()
        self.reported_at = time.monotonic()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        listeners: Sequence[socket.socket] = ()
        bounds = Bounds(settings.frame_bytes_max, settings.link_in_flight_max, settings.link_buffer_bytes)
        try:
            listeners = self._listeners()
            handed = [its.fileno(), *(each.fileno() for each in listeners)]
            command = [sys.executable, "-m", "tidemill.front", "--link", str(its.fileno())]
            command += ["--bounds", str(bounds.frame_bytes_max), str(bounds.in_flight_max), str(bounds.buffer_bytes)]
            command += [f"--listen={each.fileno()}" for each in listeners]
            self._process = spawn(command, handed)
        except BaseException:
            mine.close()
            raise
        finally:
            its.close()
            for each in listeners:
                each.close()
        self.peer = peer = await open_peer(mine, bounds, Link(self._behind, self))
        peer.tell(
            int(Topic.WELCOME), encode(Welcome(to_plain(settings), self.name, self.grpc_port, self._behind.inside()))
        )
        greet(self)
        if self._draining:
            self.drain()

    def _is_draining(self) -> bool:
        return self._draining

    def _told(self) -> str:
        return ending(self._process, "it did not start")
