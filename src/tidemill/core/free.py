"""What holds nothing and costs nothing: the slot and the charge of a request that somebody else, or nobody, counts."""

from __future__ import annotations

from types import TracebackType

from tidemill.core.request import Usage


class Free:
    """`Charge`, and the block around it."""

    __slots__ = ()

    async def __aenter__(self) -> Free:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def settle(self, usage: Usage) -> None:
        return


FREE = Free()
