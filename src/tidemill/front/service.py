"""`Service` whose requests are judged, charged and run by the owner; runs in a front."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from tidemill.core.contracts import Charge, Identity, Served
from tidemill.core.errors import Draining
from tidemill.core.free import FREE
from tidemill.core.request import Caller, InferenceRequest
from tidemill.deploy.mirror import Mirror
from tidemill.deploy.remote import RemoteFleet
from tidemill.serve.answer import Reply, Service

RETRY_AFTER_S = 1.0


class PassingGate:
    """`Gate` that knows only whether the service is going down: all limits are the owner's, and so are not
    multiplied."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def limit(self, caller: Caller, served: Served) -> None:
        if self._mirror.draining:
            raise Draining("this server is going down; ask another", retry_after_s=RETRY_AFTER_S)

    def slot(self, request: InferenceRequest) -> AbstractAsyncContextManager[None]:
        return cast(AbstractAsyncContextManager[None], FREE)


class PassingLedger:
    """`Ledger` of the front: the owner books."""

    def charge(self, caller: Caller, request: InferenceRequest) -> AbstractAsyncContextManager[Charge]:
        return FREE


class FrontService(Service):
    """What the doors of a front talk to."""

    fleet: RemoteFleet

    def __init__(self, identity: Identity, mirror: Mirror, fleet: RemoteFleet) -> None:
        super().__init__(identity, PassingGate(mirror), PassingLedger(), cast(Any, fleet))

    def open(self, caller: Caller, request: InferenceRequest) -> Reply:
        """The owner's own reply, with nothing around it."""
        return cast(Reply, self.fleet.run(request, caller))
