"""One request's whole way, in one place; runs on the owner's loop.

A door judges `identity` and `gate.limit` on the headers, before it parses a body, and then opens the reply. The reply
is a context manager, not an async generator: a stalled or vanished client gives its places back when the block ends.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from tidemill.core.contracts import Charge, Fleet, Gate, Identity, Ledger, Pieces, Served
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

    def failed(self, served: Served | None, code: str) -> None:
        """Count a request that was not answered, under its model where that is known."""
        if served is not None:
            served.failed(code)
        else:
            self.failures[code] = self.failures.get(code, 0) + 1

    def open(self, caller: Caller, request: InferenceRequest) -> Reply:
        """Answer `request`; the reply lives as long as the `async with`."""
        return Reply(self.ledger.charge(caller, request), self.gate.slot(request), self.fleet.run(request))


class Reply:
    """Charge, slot and run, entered in this order and left in the other; `async with` gives the metered pieces.

    What `async with charge, slot, run` does, without the generator of `asynccontextmanager` (2 µs a request).
    """

    __slots__ = ("_charge", "_run", "_slot")

    def __init__(
        self,
        charge: AbstractAsyncContextManager[Charge],
        slot: AbstractAsyncContextManager[None],
        run: AbstractAsyncContextManager[Pieces],
    ) -> None:
        self._charge = charge
        self._slot = slot
        self._run = run

    async def __aenter__(self) -> Pieces:
        charge = await self._charge.__aenter__()
        try:
            await self._slot.__aenter__()
            try:
                pieces = await self._run.__aenter__()
            except BaseException:
                await self._slot.__aexit__(*sys.exc_info())
                raise
        except BaseException:
            await self._charge.__aexit__(*sys.exc_info())
            raise
        return Meter(pieces, charge)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._run.__aexit__(kind, error, trace)
        finally:
            try:
                await self._slot.__aexit__(kind, error, trace)
            finally:
                await self._charge.__aexit__(kind, error, trace)
