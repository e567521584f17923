"""`Fleet` of engines in this process, one lane each; runs in the owner process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType

import msgspec

from tidemill.core.errors import ModelNotReady, TidemillError, UnknownLabel, UnknownModel, UnknownVersion
from tidemill.core.package import ModelPackage
from tidemill.core.request import InferenceRequest, Piece, Usage
from tidemill.core.running import Counts, Running
from tidemill.core.tensor import Signature, Tensors, rows
from tidemill.core.text import short
from tidemill.deploy.opening import open_engine
from tidemill.deploy.raw import RawRun
from tidemill.deploy.steps import StepPolicy, Steps, StepThreads, prepare
from tidemill.engine.lane import Lane, LanePolicy
from tidemill.observe.stats import ModelStats

log = logging.getLogger(__name__)

ENGINE_OF_FORMAT = {"onnx": "onnx", "openvino": "openvino", "savedmodel": "openvino", "echo": "echo"}
RUNTIME_OF_ENGINE = {"onnx": "onnxruntime"}
"""V2's `platform` is runtime_format, in Triton's words where it has some."""


class State(StrEnum):
    """TensorFlow Serving's words for the life of a version."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    FAILED = "FAILED"


class FleetPolicy(msgspec.Struct, frozen=True):
    """What a model takes where its own `tidemill.toml` says nothing."""

    engine: str
    threads: int
    instances: int
    rows_max: int
    waiting_max: int
    inline_s_max: float
    call_nanos: int
    steps: StepPolicy = StepPolicy()


class Replica:
    """One version of one model in this process; `Served` while AVAILABLE. `reason` says why it FAILED."""

    def __init__(self, package: ModelPackage, policy: FleetPolicy) -> None:
        self.package = package
        self.name = package.name
        self.version = package.version
        self.engine_name = package.config.engine or (
            ENGINE_OF_FORMAT.get(package.format, package.format) if policy.engine == "auto" else policy.engine
        )
        self._waiting_max = policy.waiting_max
        self.platform = f"{RUNTIME_OF_ENGINE.get(self.engine_name, self.engine_name)}_{package.format}"
        price = package.config.price.call_nanos
        self.price_nanos = policy.call_nanos if price is None else price
        self.labels = package.config.labels
        self.rows_max = package.config.batching.max_batch or policy.rows_max
        self.signature = Signature((), ())
        self.batched = False
        self.steps = Steps()
        self.state = State.LOADING
        self.reason = ""
        self.stats = ModelStats()
        self.lane: Lane | None = None

    @property
    def accepts(self) -> tuple[str, ...]:
        return self.steps.accepts

    @property
    def waiting(self) -> int:
        return self.lane.waiting if self.lane else 0

    def adopt(self, signature: Signature, rows_apart: bool = True) -> None:
        """Take the engine's word for what the model is; `tidemill.toml` has the last one on batching."""
        wish = self.package.config.batching.batched
        self.signature = signature
        self.batched = (signature.batched and rows_apart) if wish is None else wish

    def failed(self, code: str) -> None:
        self.stats.failed(code)

    def running(self) -> Running:
        return Running(
            backend=RUNTIME_OF_ENGINE.get(self.engine_name, self.engine_name),
            rows_max=self.rows_max if self.batched else 0,
            instances=self.lane.instances if self.lane else 1,
            waiting_max=self._waiting_max,
        )

    def counts(self) -> Counts:
        return self.stats.counts(time.monotonic(), time.time() * 1000)


class LocalFleet:
    """Loads packages, finds replicas, runs requests. Belongs to the loop; loading itself happens on a thread."""

    def __init__(self, policy: FleetPolicy) -> None:
        self._policy = policy
        self._replicas: dict[tuple[str, int], Replica] = {}
        self._newest: dict[str, Replica] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._threads = StepThreads(policy.steps.threads)

    def replicas(self) -> list[Replica]:
        """All of them, by name and version, the failed ones too."""
        return [self._replicas[key] for key in sorted(self._replicas)]

    def announce(self, package: ModelPackage) -> None:
        """Show `package` as LOADING, so that those who ask before its turn comes learn that it is on its way."""
        self._stand(Replica(package, self._policy))

    async def load(self, package: ModelPackage) -> Replica:
        """Load beside what serves; a package that is refused stands as FAILED with the reason, nothing else changes."""
        policy = self._policy
        replica = Replica(package, policy)
        before = self._stand(replica)
        inline_s_max = policy.inline_s_max if package.bounded else 0.0
        try:
            replica.steps = await asyncio.to_thread(prepare, package, policy.steps.bounds)
            opened = await asyncio.to_thread(
                open_engine, replica.engine_name, package, policy.threads, policy.instances, inline_s_max
            )
        except TidemillError as error:
            replica.state, replica.reason = State.FAILED, error.message
            log.error("model not loaded: %s", error.message, extra={"model": replica.name, "version": replica.version})
            return replica
        replica.adopt(opened.engine.signature, opened.rows_apart)
        self._replicas[replica.name, replica.version] = replica
        lane_policy = LanePolicy(replica.batched, replica.rows_max, policy.waiting_max, inline_s_max, opened.padder)
        replica.lane = Lane(opened.engine, lane_policy, replica.stats, time.monotonic, opened.warm_up_s, opened.narrow)
        replica.state = State.AVAILABLE
        newest = self._newest.get(replica.name)
        if newest is None or newest.version <= replica.version:
            self._newest[replica.name] = replica
        log.info(
            "model loaded",
            extra={"model": replica.name, "version": replica.version, "platform": replica.platform},
        )
        if before is not None and before.lane is not None:
            before.state = State.UNLOADING
            await before.lane.close()
        return replica

    def _stand(self, replica: Replica) -> Replica | None:
        """Show `replica` in its place, unless one that serves stands there: that one is given back, and serves on."""
        key = replica.name, replica.version
        standing = self._replicas.get(key)
        if standing is not None and standing.state is State.AVAILABLE:
            return standing
        self._replicas[key] = replica
        return None

    def refuse(self, name: str, version: int, reason: str) -> Replica:
        """Let a version that was refused on disk stand as FAILED, so that those who ask for it learn why."""
        replica = Replica(ModelPackage(name, version, Path(), "unknown", 0), self._policy)
        replica.state, replica.reason = State.FAILED, reason
        self._stand(replica)
        log.error("model refused: %s", reason, extra={"model": name, "version": version})
        return replica

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Replica:
        if label is not None:
            version = self._labelled(name, label)
        if version is None:
            replica = self._newest.get(name)
            if replica is not None and replica.state is State.AVAILABLE:
                return replica
        else:
            replica = self._replicas.get((name, version))
            if replica is not None and replica.state is State.AVAILABLE:
                return replica
        raise self._not_found(name, version)

    def versions(self, name: str) -> list[Replica]:
        """Every version of `name`, oldest first. Raises `UnknownModel`."""
        found = [replica for (model, _), replica in sorted(self._replicas.items()) if model == name]
        if not found:
            raise self._not_found(name, None)
        return found

    def label(self, name: str, labels: Mapping[str, int]) -> None:
        """Give the versions of `name` these labels, and no others."""
        self._labels[name] = dict(labels)

    def _labelled(self, name: str, label: str) -> int:
        if not any(model == name for model, _ in self._replicas):
            raise self._not_found(name, None)
        labels = self._labels.get(name, {})
        if label not in labels:
            known = ", ".join(sorted(labels)) or "none"
            raise UnknownLabel(f"model {name!r} has no label {short(label)}; its labels are {known}")
        return labels[label]

    def _not_found(self, name: str, version: int | None) -> TidemillError:
        mine = [replica for replica in self.replicas() if replica.name == name]
        if not mine:
            served = ", ".join(sorted({replica.name for replica in self.replicas()})) or "none"
            return UnknownModel(f"there is no model {short(name)}; served are {served}")
        wanted = [replica for replica in mine if version in (None, replica.version)]
        if not wanted:
            versions = ", ".join(str(replica.version) for replica in mine)
            return UnknownVersion(f"model {name!r} has no version {version}; served are {versions}")
        replica = wanted[-1]
        why = "; this server's log and `tidemill show` tell why" if replica.state is State.FAILED else ""
        return ModelNotReady(f"model {name!r} version {replica.version} is {replica.state}{why}")

    def price_nanos(self, name: str, version: int) -> int:
        return self._replicas[name, version].price_nanos

    def run(self, request: InferenceRequest) -> Run | RawRun:
        replica = self._replicas.get((request.model, request.version))
        if replica is None:
            raise self._not_found(request.model, request.version)
        if request.work.media:
            return RawRun(self, replica, request, self._threads, self._policy.steps)
        return Run(replica, request)

    async def close(self) -> None:
        """Finish what waits in every lane, then give the engines back."""
        lanes = []
        for replica in self.replicas():
            if replica.lane is not None:
                replica.state = State.UNLOADING
                lanes.append(replica.lane.close())
        await asyncio.gather(*lanes)
        self._threads.close()


class Run:
    """One request in its lane: enters the queue with the block, leaves it, done or not, with the block."""

    __slots__ = ("_future", "_replica", "_request")

    def __init__(self, replica: Replica, request: InferenceRequest) -> None:
        self._replica = replica
        self._request = request
        self._future: asyncio.Future[Tensors] | None = None

    async def __aenter__(self) -> Run:
        lane = self._replica.lane
        if lane is None:
            raise ModelNotReady(f"model {self._replica.name!r} is {self._replica.state}")
        self._future = lane.submit(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._future is not None and not self._future.done():
            self._future.cancel()

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> Piece:
        future = self._future
        if future is None:
            raise StopAsyncIteration
        try:
            tensors = await future
        finally:
            # An error's trace holds this frame, the frame this object, this object the future, the future the error: a
            # ring that would keep the request's tensors until the next collection.
            self._future = future = None
        count = rows(self._request.work.inputs) if self._replica.batched else 1
        return Piece(tensors, Usage(calls=1, rows=count or 1))
