"""`Gate` with one bound: how many requests a model holds between admission and reply; runs on the owner's loop."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from tidemill.core.contracts import Served
from tidemill.core.errors import Draining, Overloaded
from tidemill.core.request import Caller, InferenceRequest

RETRY_AFTER_S = 1.0


class BoundedQueue:
    """Holds `queue_max` requests for each model; one more is refused at once, and so is all while draining."""

    def __init__(self, queue_max: int, is_draining: Callable[[], bool]) -> None:
        self._queue_max = queue_max
        self._is_draining = is_draining
        self._held: dict[str, int] = {}
        self.in_flight = 0

    def limit(self, caller: Caller, served: Served) -> None:
        if self._is_draining():
            raise Draining("this server is going down; ask another", retry_after_s=RETRY_AFTER_S)
        self._check(served.name)

    def slot(self, request: InferenceRequest) -> Slot:
        return Slot(self, request.model)

    def held(self, model: str) -> int:
        """Requests of `model` between admission and reply."""
        return self._held.get(model, 0)

    def _check(self, model: str) -> None:
        held = self._held.get(model, 0)
        if held >= self._queue_max:
            raise Overloaded(
                f"model {model!r} holds {held} requests, the most allowed (--queue-max); try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    def take(self, model: str) -> None:
        self._check(model)
        self._held[model] = self._held.get(model, 0) + 1
        self.in_flight += 1

    def give_back(self, model: str) -> None:
        left = self._held[model] - 1
        self.in_flight -= 1
        if left:
            self._held[model] = left
        else:
            del self._held[model]


class Slot:
    """A place to run, held for the length of the `async with`."""

    __slots__ = ("_model", "_queue")

    def __init__(self, queue: BoundedQueue, model: str) -> None:
        self._queue = queue
        self._model = model

    async def __aenter__(self) -> None:
        self._queue.take(self._model)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.give_back(self._model)
