"""Small true implementations of the protocols, for tests that need a service without its crafts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tidemill.core.contracts import Pieces, Served
from tidemill.core.errors import (
    InvalidKey,
    MissingKey,
    RefusedModel,
    RevokedKey,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from tidemill.core.generation import Speaks
from tidemill.core.package import Indexed, ModelConfig, ModelEntry, VersionPolicy
from tidemill.core.price import Tariff
from tidemill.core.request import Caller, InferenceRequest, Piece, Usage
from tidemill.core.running import Counts, Running
from tidemill.core.tensor import Signature, Tensors, TensorSpec, rows
from tidemill.serve.answer import Service

KEY = "tm_test"
CALLER = Caller("acme", "key1")
ADMIN_KEY = "tm_admin"
ADMIN = Caller("house", "key2", admin=True)

HALVE = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))


def halve(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] / 2}


def echo(inputs: Tensors) -> Tensors:
    return inputs


class FakeServed:
    platform = "fake"
    tariff = Tariff(1)
    waiting = 0
    labels: tuple[str, ...] = ()
    state = "AVAILABLE"
    reason = ""
    rows_max = 8
    accepts: tuple[str, ...] = ()
    speaks: Speaks | None = None
    embeds = False
    run: Callable[[InferenceRequest], AbstractAsyncContextManager[Pieces]] | None = None
    """What answers in the place of `answer`, for a model that does not take tensors."""

    def __init__(self, name: str, version: int, signature: Signature, answer: Callable[[Tensors], Tensors]) -> None:
        self.name = name
        self.version = version
        self.signature = signature
        self.answer = answer
        self.failures: list[str] = []

    def failed(self, code: str) -> None:
        self.failures.append(code)

    def running(self) -> Running:
        return Running("fake", self.rows_max, 2, 100)

    def counts(self) -> Counts:
        return Counts()


class FakeIdentity:
    """Knows a tenant's key and an admin's; `revoked` are the ids of those that are no more."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def recognise(self, credential: str) -> Caller:
        for known, caller in ((KEY, CALLER), (ADMIN_KEY, ADMIN)):
            if credential == known:
                if caller.key in self.revoked:
                    raise RevokedKey("this key was revoked")
                return caller
        raise InvalidKey("there is no such key") if credential else MissingKey("send a key")

    def check(self, caller: Caller) -> None:
        if caller.key in self.revoked:
            raise RevokedKey("this key was revoked")


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
        self.labels: dict[str, int] = {}
        self.aliases: dict[str, str] = {}
        self.requests: list[InferenceRequest] = []
        self.arrived = asyncio.Event()
        self.held: asyncio.Event | None = None
        self.cancelled = asyncio.Event()

    def find(self, name: str, version: int | None = None, label: str | None = None) -> FakeServed:
        versions = list(reversed(self.versions(name)))
        if label is not None:
            if label not in self.labels:
                raise UnknownLabel(f"model {name!r} has no label {label!r}; its labels are {list(self.labels)}")
            version = self.labels[label]
        for model in versions:
            if version in (None, model.version):
                return model
        raise UnknownVersion(f"model {name!r} has no version {version}")

    def versions(self, name: str) -> list[FakeServed]:
        name = self.aliases.get(name, name)
        found = [model for model in self.replicas() if model.name == name]
        if not found:
            raise UnknownModel(f"there is no model {name!r}")
        return found

    def replicas(self) -> list[FakeServed]:
        return sorted(self.models, key=lambda model: (model.name, model.version))

    @asynccontextmanager
    async def run(self, request: InferenceRequest) -> AsyncIterator[Pieces]:
        run = self.find(request.model, request.version).run
        if run is None:
            yield self._pieces(request)
            return
        self.requests.append(request)
        async with run(request) as pieces:
            yield pieces

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


class FakeModels:
    """What may be loaded is what the fleet was made with; what is unloaded is gone from it. `refused` holds names that
    will not be loaded, `configs` the configuration of each load."""

    def __init__(self, fleet: FakeFleet) -> None:
        self._fleet = fleet
        self._on_disk = fleet.models
        self.refused: set[str] = set()
        self.configs: list[tuple[str, ModelConfig | None]] = []

    def index(self) -> Sequence[Indexed]:
        served = self._fleet.models
        return [
            Indexed(each.name, each.version, each.state if each in served else "", each.reason)
            for each in sorted(self._on_disk, key=lambda each: (each.name, each.version))
        ]

    def policy(self, name: str) -> VersionPolicy:
        self._found(name)
        return VersionPolicy(all_versions=True)

    async def load(self, name: str, config: ModelConfig | None = None) -> None:
        await asyncio.sleep(0)
        found = self._found(name)
        if name in self.refused:
            raise RefusedModel(f"model {name!r} is no model")
        self.configs.append((name, config))
        others = tuple(each for each in self._fleet.models if each.name != name)
        self._fleet.models = (*others, *found)

    async def unload(self, name: str) -> None:
        await asyncio.sleep(0)
        self._found(name)
        self._fleet.models = tuple(each for each in self._fleet.models if each.name != name)

    async def reload(self, entries: Sequence[ModelEntry]) -> None:
        for entry in entries:
            await self.load(entry.name, entry.config)
        for name in {each.name for each in self._fleet.models} - {entry.name for entry in entries}:
            await self.unload(name)

    def _found(self, name: str) -> tuple[FakeServed, ...]:
        found = tuple(each for each in self._on_disk if each.name == name)
        if not found:
            raise UnknownModel(f"there is no model {name!r}")
        return found


class FakeService(Service):
    """The real way through fakes. Without models it serves `half`, which halves its input."""

    identity: FakeIdentity
    gate: FakeGate
    ledger: FakeLedger
    fleet: FakeFleet
    models: FakeModels

    def __init__(self, *models: FakeServed) -> None:
        served = models or (FakeServed("half", 1, HALVE, halve),)
        fleet = FakeFleet(*served)
        super().__init__(FakeIdentity(), FakeGate(), FakeLedger(), fleet, FakeModels(fleet))


class FakeCollector:
    """A small OTLP/HTTP collector on a port of its own: takes what exporters send, and keeps the spans.

    Life: a context manager. While `status` is not 200 it refuses.
    """

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert path == "/v1/traces", path
        self.asked += 1
        if self.status != 200:
            return
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in each.resource.attributes})
            for scope in each.scope_spans:
                self.spans.extend(scope.spans)

    def __enter__(self) -> FakeCollector:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
