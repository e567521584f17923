"""All fronts of one service: their sockets, what they are told, what they counted; belongs to the owner's loop."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from tidemill.assemble.front_process import FrontProcess
from tidemill.assemble.inside import Inside
from tidemill.core.contracts import Served
from tidemill.core.settings import Settings
from tidemill.deploy.replica import State
from tidemill.doors.grpc_forward import Handlers
from tidemill.doors.head import ASGIApp
from tidemill.doors.listen import bind, share_port
from tidemill.observe.metrics import FrontSample
from tidemill.serve.answer import Service
from tidemill.wire.messages import Failures, Model, Table, Topic, encode
from tidemill.wire.peer import Peer

log = logging.getLogger(__name__)

PUBLISH_S: Final = 0.05
"""How late a front may learn of a change that nobody asked for over a front."""
KNOWN_S: Final = 0.5
"""How long a version that is served no more is kept for requests of fronts that did not know it yet."""
WATCH_S: Final = 1.0
STOP_S_MAX: Final = 5.0
"""What closing connections may take on top of the drain."""
BACKLOG: Final = 2048


class Catalogue(Protocol):
    """What is served, as `LocalFleet` tells it."""

    def replicas(self) -> Sequence[Served]: ...

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served: ...

    def labels(self, name: str) -> dict[str, int]: ...


class Fronts:
    """`link.Behind`, and the processes."""

    def __init__(
        self,
        service: Service,
        catalogue: Catalogue,
        app: ASGIApp,
        methods: Handlers,
        settings: Settings,
        reserved: Sequence[socket.socket],
        is_ready: Callable[[], bool],
        is_draining: Callable[[], bool],
        inside: Inside | None,
    ) -> None:
        """`reserved` are the addresses of HTTP, taken and not listened at. `inside` is there under TLS."""
        self.service = service
        self.app = app
        self.methods = methods
        self.charging = not settings.no_charge
        self._catalogue = catalogue
        self._settings = settings
        self._reserved = reserved
        self._is_ready = is_ready
        self._is_draining = is_draining
        self._inside = inside
        self._published: dict[tuple[str, int], Served] = {}
        self._leaving: dict[tuple[str, int], tuple[float, Served]] = {}
        self._table = b""
        share = -(-settings.connections_max // settings.fronts)
        http = dataclasses.replace(settings, connections_max=share)
        numbers = range(1, settings.fronts + 1)
        self.grpc = FrontProcess("grpc", self, settings, tuple)
        self.all = [*(FrontProcess(f"http-{number}", self, http, self._listen) for number in numbers), self.grpc]
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """As `Entry.start`: none of them listens yet."""
        settings = self._settings
        if settings.grpc_port:
            bind(settings.host, settings.grpc_port, "--grpc-port").close()  # in our words, before it fails in a child
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each.run(self._greet)) for each in self.all]
        self._tasks += [loop.create_task(self._publish_changes()), loop.create_task(self._watch())]

    @property
    def grpc_port(self) -> int:
        return self.grpc.grpc_port

    async def ready(self) -> None:
        """Return when all of them listen for the first time."""
        await asyncio.gather(*(each.first() for each in self.all))

    async def ended(self) -> None:
        """Never by itself: what ends is started again."""
        await asyncio.wait(self._tasks, return_when=asyncio.ALL_COMPLETED)

    async def drain(self) -> None:
        """Let every front finish what runs and end; those that take longer are killed."""
        seconds_max = self._settings.drain_ms / 1000 + STOP_S_MAX
        self.publish()
        for each in self.all:
            each.drain()
        ends = asyncio.gather(*self._tasks[: len(self.all)])
        try:
            await asyncio.wait_for(asyncio.shield(ends), seconds_max)
        except TimeoutError:
            for each in self.all:
                each.kill()
            await ends
        for task in self._tasks[len(self.all) :]:
            task.cancel()

    # -- `link.Behind` -------------------------------------------------------------------------------------------------

    def served(self, name: str, version: int) -> Served:
        found = self._published.get((name, version))
        if found is not None:
            return found
        if (left := self._leaving.get((name, version))) is not None:
            return left[1]
        return self._catalogue.find(name, version)

    def publish(self) -> None:
        replicas = self._catalogue.replicas()
        now = time.monotonic()
        self._remember(replicas, now)
        models = tuple(map(_told, replicas))
        labels = {name: found for name in {each.name for each in replicas} if (found := self._catalogue.labels(name))}
        table = encode(Table(models, labels, self._is_ready(), self._is_draining(), self.grpc.grpc_port))
        if table != self._table:
            self._table = table
            for each in self.all:
                if each.peer is not None:
                    each.peer.tell(int(Topic.TABLE), table)

    def inside(self) -> str:
        return "" if self._inside is None else str(self._inside.grpc)

    def count(self, failures: Iterable[Failures]) -> None:
        """Add what a front refused, or told callers that it had failed."""
        for each in failures:
            served = self._published.get((each.model, each.version))
            for _ in range(each.count):
                self.service.failed(served, each.code)

    # -- what the owner tells and asks ---------------------------------------------------------------------------------

    def keys_changed(self) -> None:
        for each in self.all:
            if each.peer is not None:
                each.peer.tell(int(Topic.KEYS))

    @property
    def connection_count(self) -> int:
        return sum(each.report.connections for each in self.all)

    def sample(self) -> list[FrontSample]:
        return [each.sample() for each in self.all]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _greet(self, peer: Peer) -> None:
        self.publish()
        peer.tell(int(Topic.TABLE), self._table)

    def _remember(self, replicas: Sequence[Served], now: float) -> None:
        """Hold what fronts may still ask for: a version that leaves is held until they know, and no longer: it ends
        when nobody holds it."""
        published = {(each.name, each.version): each for each in replicas if str(each.state) != State.UNLOADING}
        for key, before in self._published.items():
            if published.get(key) is not before:
                self._leaving[key] = (now + KNOWN_S, before)
        self._published = published
        for key in [key for key, (until, _) in self._leaving.items() if until < now]:
            del self._leaving[key]

    def _listen(self) -> list[socket.socket]:
        """A listening socket for each address, beside those of the other fronts: the kernel shares connections out."""
        made: list[socket.socket] = []
        try:
            for reserved in self._reserved:
                listener = socket.socket(reserved.family, socket.SOCK_STREAM)
                made.append(listener)
                share_port(listener)
                listener.bind(reserved.getsockname())
                listener.listen(BACKLOG)
                listener.setblocking(False)
        except OSError:
            for each in made:
                each.close()
            raise
        return made

    async def _publish_changes(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_S)
            self.publish()

    async def _watch(self) -> None:
        """A front that says nothing for long has stopped: it holds places and answers nobody."""
        while True:
            await asyncio.sleep(WATCH_S)
            silent_s_max = self._settings.front_silent_ms_max / 1000
            now = time.monotonic()
            for each in self.all:
                if each.up and now - each.reported_at > silent_s_max:
                    each.kill()


def _told(served: Served) -> Model:
    return Model(
        served.name,
        served.version,
        served.signature,
        tuple(served.labels),
        served.platform,
        served.accepts,
        served.price_nanos,
        str(served.state),
        served.reason,
        served.running(),
    )
