"""One durable charge for each answered request; runs in the owner process."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from tidemill.account.group_commit import GroupCommit
from tidemill.core.errors import LedgerUnavailable
from tidemill.core.free import FREE, Free
from tidemill.core.generation import Tokenise
from tidemill.core.price import Tariff
from tidemill.core.request import Caller, InferenceRequest, Usage

TariffOf = Callable[[str, int], Tariff]
"""(model, version) -> its prices."""
NANOS_MAX = 2**63 - 1
"""What the database holds in one charge."""


class DurableLedger:
    """`Ledger` that books through a group commit, at the prices of each model."""

    def __init__(self, commits: GroupCommit, tariff_of: TariffOf) -> None:
        self._commits = commits
        self._tariff_of = tariff_of

    def charge(self, caller: Caller, request: InferenceRequest) -> DurableCharge:
        return DurableCharge(self._commits, caller, request, self._tariff_of(request.model, request.version))


class DurableCharge:
    """The price is taken when the request is admitted: a price that changes meanwhile does not touch it."""

    __slots__ = ("_caller", "_commits", "_request", "_tariff")

    def __init__(self, commits: GroupCommit, caller: Caller, request: InferenceRequest, tariff: Tariff) -> None:
        self._commits = commits
        self._caller = caller
        self._request = request
        self._tariff = tariff

    async def __aenter__(self) -> DurableCharge:
        self._commits.open_count += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commits.open_count -= 1

    async def settle(self, usage: Usage) -> None:
        request, caller = self._request, self._caller
        if isinstance(request.work, Tokenise):
            usage = Usage(usage.calls, usage.rows)  # counting tokens is no reading of them
        nanos = self._tariff.nanos(usage, request.batch)
        if nanos > NANOS_MAX:
            raise LedgerUnavailable(f"a charge of {nanos} nano-units is more than one charge can be, {NANOS_MAX}")
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
                nanos,
                int(time.time() * 1000),
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.cached_tokens,
            )
        )


class FreeLedger:
    """`Ledger` that books nothing (`--no-charge`)."""

    def charge(self, caller: Caller, request: InferenceRequest) -> Free:
        return FREE
