"""The frame of a request that is answered in one piece with steps of its own; runs on the owner's loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tidemill.core.contracts import Fleet
from tidemill.core.request import InferenceRequest, Piece
from tidemill.deploy.steps import StepPolicy, StepThreads


class OnePiece(ABC):
    """The pieces of one request, one in number: what `_answer` gives. Nothing begins before it is asked for."""

    __slots__ = ("_done", "_fleet", "_policy", "_request", "_threads")

    def __init__(self, fleet: Fleet, request: InferenceRequest, threads: StepThreads, policy: StepPolicy) -> None:
        self._fleet = fleet
        self._request = request
        self._threads = threads
        self._policy = policy
        self._done = False

    def _check(self) -> None:  # noqa: B027 - most take every request
        """Raises what tells that this request is none for this model."""

    @abstractmethod
    async def _answer(self) -> Piece: ...

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        if self._done:
            raise StopAsyncIteration
        self._done = True
        return await self._answer()
