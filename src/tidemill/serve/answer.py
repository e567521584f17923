"""One request's whole way, in one place; runs on the owner's loop.

A door judges `identity` and `gate.limit` on the headers, before it parses a body, and then opens the reply. The reply
is a context manager, not an async generator: a stalled or vanished client gives its places back when the block ends.
Its charge is settled as the block ends well, so a door words its answer inside and sends the end of it outside: what
could not be worded is not charged, and nothing is answered that is not booked.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from tidemill.core.contracts import Charge, Fleet, Gate, Identity, Ledger, Models, Pieces, Served
from tidemill.core.request import Caller, InferenceRequest
from tidemill.observe import trace
from tidemill.serve.meter import Meter


class Service:
    """What every door talks to."""

    def __init__(
        self, identity: Identity, gate: Gate, ledger: Ledger, fleet: Fleet, models: Models | None = None
    ) -> None:
        """`models` is None where nothing can be loaded or unloaded while the service runs."""
        self.identity = identity
        self.gate = gate
        self.ledger = ledger
        self.fleet = fleet
        self.models = models
        self.failures: dict[str, int] = {}

    def failed(self, served: Served | None, code: str) -> None:
        """Count a request that was not answered, under its model where that is known."""
        trace.tell({"tidemill.code": code})
        if served is not None:
            served.failed(code)
        else:
            self.failures[code] = self.failures.get(code, 0) + 1

    def open(self, caller: Caller, request: InferenceRequest) -> Reply:
        """Answer `request`; the reply lives as long as the `async with`."""
        return Reply(self.ledger.charge(caller, request), self.gate.slot(request), self.fleet.run(request))


class Reply:
    """Charge, slot and run, entered in this order and left in the other; `async with` gives the metered pieces.

    What `async with charge, slot, run` does, without the generator of `asynccontextmanager` (2 µs a request). Leaving
    it without an error after the final piece returns when the charge is durable, and raises `LedgerUnavailable` when
    it cannot be; leaving it with one, or early, books nothing and never waits.
    """

    __slots__ = ("_charge", "_charging", "_meter", "_run", "_slot")

    def __init__(
        self,
        charging: AbstractAsyncContextManager[Charge],
        slot: AbstractAsyncContextManager[None],
        run: AbstractAsyncContextManager[Pieces],
    ) -> None:
        self._charging = charging
        self._slot = slot
        self._run = run

    async def __aenter__(self) -> Pieces:
        self._charge = await self._charging.__aenter__()
        try:
            await self._slot.__aenter__()
            try:
                self._meter = Meter(await self._run.__aenter__())
            except BaseException:
                await self._slot.__aexit__(*sys.exc_info())
                raise
        except BaseException:
            await self._charging.__aexit__(*sys.exc_info())
            raise
        return self._meter

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                await self._run.__aexit__(kind, error, trace)
            finally:
                await self._slot.__aexit__(kind, error, trace)
            if kind is None and self._meter.usage is not None:
                await self._charge.settle(self._meter.usage)
        finally:
            await self._charging.__aexit__(kind, error, trace)
