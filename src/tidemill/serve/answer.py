"""One request's whole way, in one place; runs on the owner's loop.

A door judges `identity` and `gate.limit` on the headers, before it parses a body, and then opens the reply. The reply
is a context manager, not an async generator: a stalled or vanished client gives its places back when the block ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidemill.core.contracts import Fleet, Gate, Identity, Ledger, Pieces, Served
from tidemill.core.request import Caller, InferenceRequest
from tidemill.serve.meter import Meter


class Service:
    """What every door talks to."""

    def __init__(self, identity: Identity, gate: Gate, ledger: Ledger, fleet: Fleet) -> None:
        self.identity = identity
        self.gate = gate
        self.ledger = ledger
        self.fleet = fleet
        self.failures: dict[str, int] = {}

    def admit(self, credential: str, served: Served) -> Caller:
        """May this caller ask this model now? Raises what `Identity.recognise` and `Gate.limit` raise."""
        caller = self.identity.recognise(credential)
        self.gate.limit(caller, served)
        return caller

    def failed(self, served: Served | None, code: str) -> None:
        """Count a request that was not answered, under its model where that is known."""
        if served is not None:
            served.failed(code)
        else:
            self.failures[code] = self.failures.get(code, 0) + 1

    @asynccontextmanager
    async def open(self, caller: Caller, request: InferenceRequest) -> AsyncIterator[Pieces]:
        """Answer `request`; the reply lives as long as the `async with`."""
        async with (
            self.ledger.charge(caller, request) as charge,
            self.gate.slot(request),
            self.fleet.run(request) as pieces,
        ):
            yield Meter(pieces, charge)
