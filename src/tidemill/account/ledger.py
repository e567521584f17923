"""One durable charge for each answered request; runs in the owner process."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from tidemill.account.group_commit import GroupCommit
from tidemill.core.request import Caller, InferenceRequest, Usage

PriceOf = Callable[[str, int], int]
"""(model, version) -> nano-units a call."""


class DurableLedger:
    """`Ledger` that books through a group commit, at one price a call."""

    def __init__(self, commits: GroupCommit, price_of: PriceOf) -> None:
        self._commits = commits
        self._price_of = price_of

    def charge(self, caller: Caller, request: InferenceRequest) -> DurableCharge:
        return DurableCharge(self._commits, caller, request, self._price_of(request.model, request.version))


class DurableCharge:
    """The price is taken when the request is admitted: a price that changes meanwhile does not touch it."""

    __slots__ = ("_caller", "_commits", "_price_nanos", "_request")

    def __init__(self, commits: GroupCommit, caller: Caller, request: InferenceRequest, price_nanos: int) -> None:
        self._commits = commits
        self._caller = caller
        self._request = request
        self._price_nanos = price_nanos

    async def __aenter__(self) -> DurableCharge:
        self._commits.open_count += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commits.open_count -= 1

    async def settle(self, usage: Usage) -> None:
        request, caller = self._request, self._caller
        await self._commits.write(
            (
                request.charge_id,
                caller.tenant,
                caller.key,
                request.model,
                request.version,
                request.request_id,
                usage.calls,
                usage.rows,
                self._price_nanos * usage.calls,
                int(time.time() * 1000),
            )
        )


class FreeLedger:
    """`Ledger` that books nothing (`--no-charge`)."""

    def charge(self, caller: Caller, request: InferenceRequest) -> FreeCharge:
        return FREE


class FreeCharge:
    __slots__ = ()

    async def __aenter__(self) -> FreeCharge:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def settle(self, usage: Usage) -> None:
        return


FREE = FreeCharge()
