"""A front's end and the owner's end of a true link, in one process and on one loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tidemill.assemble.link import Link
from tidemill.core.contracts import Served
from tidemill.deploy.mirror import Mirror, Refusals
from tidemill.deploy.remote import RemoteFleet
from tidemill.doors.head import ASGIApp
from tidemill.serve.answer import Service
from tidemill.wire.frames import Frame
from tidemill.wire.messages import Failures, Model, Table
from tidemill.wire.peer import Asked, Bounds, Peer, open_peer

BOUNDS = Bounds(2**22, 256, 2**20)


class Deaf:
    """A front that is asked and told nothing."""

    def asked(self, stream: Asked, frame: Frame) -> None:
        raise AssertionError

    def told(self, frame: Frame) -> None:
        raise AssertionError

    def lost(self) -> None:
        return


class Behind:
    """What a link leads to: `service`, with nothing around it."""

    methods: tuple[Any, ...] = ()

    def __init__(self, service: Service, charging: bool = False, app: ASGIApp | None = None) -> None:
        self.service = service
        self.app = app or self._nothing
        self.charging = charging
        self.counted: list[Failures] = []

    async def _nothing(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    def released(self, serial: int) -> None:
        return

    def find(self, name: str, version: int) -> Served:
        return self.served(name, version)

    def served(self, name: str, version: int) -> Served:
        return self.service.fleet.find(name, version)

    def publish(self) -> None:
        return

    def count(self, failures: Iterable[Failures]) -> None:
        self.counted += failures

    def ready(self, ready: Any) -> None:
        return

    def reported(self, report: Any) -> None:
        self.count(report.failures)

    def lost(self) -> None:
        return


def told(served: Iterable[Served]) -> Table:
    models = [
        Model(
            number,
            each.name,
            each.version,
            each.signature,
            tuple(each.labels),
            each.platform,
            each.accepts,
            each.tariff,
            "AVAILABLE",
            "",
            each.running(),
        )
        for number, each in enumerate(served, 1)
    ]
    return Table(tuple(models), {}, ready=True, draining=False, grpc_port=0)


class Ends:
    def __init__(self, fleet: RemoteFleet, mirror: Mirror, refusals: Refusals, front: Peer, owner: Peer) -> None:
        self.fleet, self.mirror, self.refusals, self.front, self.owner = fleet, mirror, refusals, front, owner


@asynccontextmanager
async def linked(
    service: Service,
    served: Iterable[Served],
    *,
    charging: bool = False,
    bounds: Bounds = BOUNDS,
    app: ASGIApp | None = None,
) -> AsyncIterator[Ends]:
    """A fleet whose requests are answered by `service` at the other end, which serves `served`; `app` answers what is
    passed on whole."""
    near, far = socket.socketpair(socket.AF_UNIX)
    behind = Behind(service, charging, app)
    owner = await open_peer(far, bounds, Link(behind, behind))
    front = await open_peer(near, bounds, Deaf())
    refusals = Refusals()
    mirror = Mirror(refusals)
    mirror.show(told(served))
    try:
        yield Ends(RemoteFleet(mirror, front), mirror, refusals, front, owner)
    finally:
        front.close()
        owner.close()
