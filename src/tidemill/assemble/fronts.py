"""All fronts of one service: their sockets, what they are told, what they counted; belongs to the owner's loop."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import socket
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from tidemill.assemble.front_process import FrontProcess
from tidemill.assemble.inside import Inside
from tidemill.core.contracts import Served
from tidemill.core.settings import Settings
from tidemill.doors import grpc_server
from tidemill.doors.grpc_forward import Handlers
from tidemill.doors.head import ASGIApp
from tidemill.doors.listen import bind, share_port
from tidemill.observe.metrics import FrontSample
from tidemill.serve.answer import Service
from tidemill.wire.messages import Failures, Model, Table, Topic, encode

log = logging.getLogger(__name__)

PUBLISH_S: Final = 0.05
"""How late a front may learn of a change that nobody asked for over a front."""
AVAILABLE: Final = "AVAILABLE"
WATCH_S: Final = 1.0
STOP_S_MAX: Final = 5.0
"""What closing connections may take on top of the drain."""
BACKLOG: Final = 2048


class Catalogue(Protocol):
    """What is served, as `LocalFleet` tells it."""

    def replicas(self) -> Sequence[Served]: ...

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served: ...

    def labels(self, name: str) -> dict[str, int]: ...

    @property
    def parked(self) -> Collection[str]: ...

    @property
    def aliases(self) -> dict[str, str]: ...


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
        self._serving: dict[int, Served] = {}
        self._serials: weakref.WeakKeyDictionary[Served, int] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
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
        grpc_server.native_engine(settings, self._inside is not None)  # told here, before it fails in a child
        if settings.grpc_port:
            host = settings.grpc_host or settings.host
            bind(host, settings.grpc_port, "--grpc-port").close()  # in our words, before it fails in a child
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

    def find(self, name: str, version: int) -> Served:
        return self._catalogue.find(name, version)

    def publish(self) -> None:
        replicas = self._catalogue.replicas()
        self._serving = {self._serial(each): each for each in replicas if each.state == AVAILABLE}
        models = tuple(_told(each, self._serials.get(each, 0)) for each in replicas)
        labels = {name: found for name in {each.name for each in replicas} if (found := self._catalogue.labels(name))}
        parked = frozenset(self._catalogue.parked)
        ready, draining, aliases = self._is_ready(), self._is_draining(), self._catalogue.aliases
        table = encode(Table(models, labels, ready, draining, self.grpc.grpc_port, parked, aliases))
        if table != self._table:
            self._table = table
            for each in self.all:
                each.show(table, self._serving)

    def inside(self) -> str:
        return "" if self._inside is None else str(self._inside.grpc)

    def count(self, failures: Iterable[Failures]) -> None:
        """Add what a front refused, or told callers that it had failed."""
        known = {(each.name, each.version): each for each in self._serving.values()}
        for each in failures:
            served = known.get((each.model, each.version))
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

    def _greet(self, front: FrontProcess) -> None:
        self.publish()
        front.show(self._table, self._serving)

    def _serial(self, served: Served) -> int:
        """Its own for as long as it serves, and never another's."""
        found = self._serials.get(served)
        if found is None:
            found = self._serials[served] = next(self._numbers)
        return found

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


def _told(served: Served, serial: int) -> Model:
    return Model(
        serial if served.state == AVAILABLE else 0,
        served.name,
        served.version,
        served.signature,
        tuple(served.labels),
        served.platform,
        served.accepts,
        served.tariff,
        str(served.state),
        served.reason,
        served.running(),
        served.speaks,
        served.embeds,
    )
