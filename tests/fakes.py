"""Small true implementations of the protocols, for tests that need a service without its crafts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tidemill.core.contracts import Pieces, Served
from tidemill.core.errors import InvalidKey, MissingKey, UnknownLabel, UnknownModel, UnknownVersion
from tidemill.core.request import Caller, InferenceRequest, Piece, Usage
from tidemill.core.tensor import Signature, Tensors, TensorSpec, rows
from tidemill.serve.answer import Service

KEY = "tm_test"
CALLER = Caller("acme", "key1")

HALVE = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))


def halve(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] / 2}


def echo(inputs: Tensors) -> Tensors:
    return inputs


class FakeServed:
    platform = "fake"
    price_nanos = 1
    waiting = 0

    def __init__(self, name: str, version: int, signature: Signature, answer: Callable[[Tensors], Tensors]) -> None:
        self.name = name
        self.version = version
        self.signature = signature
        self.answer = answer
        self.failures: list[str] = []

    def failed(self, code: str) -> None:
        self.failures.append(code)


class FakeIdentity:
    """Knows one key."""

    def recognise(self, credential: str) -> Caller:
        if credential == KEY:
            return CALLER
        raise InvalidKey("there is no such key") if credential else MissingKey("send a key")


class FakeGate:
    """Refuses with `refusal` while it is set; counts the places taken."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.held = 0

    def limit(self, caller: Caller, served: Served) -> None:
        if self.refusal is not None:
            raise self.refusal

    @asynccontextmanager
    async def slot(self, request: InferenceRequest) -> AsyncIterator[None]:
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1


class FakeCharge:
    def __init__(self, ledger: FakeLedger, charge_id: str) -> None:
        self._ledger = ledger
        self._charge_id = charge_id

    async def settle(self, usage: Usage) -> None:
        self._ledger.booked[self._charge_id] = usage


class FakeLedger:
    """`booked` holds what each charge came to."""

    def __init__(self) -> None:
        self.booked: dict[str, Usage] = {}

    @asynccontextmanager
    async def charge(self, caller: Caller, request: InferenceRequest) -> AsyncIterator[FakeCharge]:
        yield FakeCharge(self, request.charge_id)


class FakeFleet:
    """Answers at once, or when `held` is set; `cancelled` counts those who left before."""

    def __init__(self, *models: FakeServed) -> None:
        self.models = models
        self.requests: list[InferenceRequest] = []
        self.arrived = asyncio.Event()
        self.held: asyncio.Event | None = None
        self.cancelled = asyncio.Event()

    def find(self, name: str, version: int | None = None, label: str | None = None) -> FakeServed:
        if label is not None:
            raise UnknownLabel(f"model {name!r} has no label {label!r}; its labels are none")
        versions = [model for model in self.models if model.name == name]
        if not versions:
            raise UnknownModel(f"there is no model {name!r}")
        for model in versions:
            if version in (None, model.version):
                return model
        raise UnknownVersion(f"model {name!r} has no version {version}")

    @asynccontextmanager
    async def run(self, request: InferenceRequest) -> AsyncIterator[Pieces]:
        yield self._pieces(request)

    async def _pieces(self, request: InferenceRequest) -> Pieces:
        self.requests.append(request)
        self.arrived.set()
        if self.held is not None:
            try:
                await self.held.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        answer = self.find(request.model, request.version).answer
        yield Piece(answer(request.work.inputs), Usage(rows=rows(request.work.inputs)))


class FakeService(Service):
    """The real way through fakes. Without models it serves `half`, which halves its input."""

    identity: FakeIdentity
    gate: FakeGate
    ledger: FakeLedger
    fleet: FakeFleet

    def __init__(self, *models: FakeServed) -> None:
        served = models or (FakeServed("half", 1, HALVE, halve),)
        super().__init__(FakeIdentity(), FakeGate(), FakeLedger(), FakeFleet(*served))
