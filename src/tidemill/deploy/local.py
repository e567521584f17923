"""`Fleet` of engines in this process, one lane each; runs in the owner process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType

from tidemill.core.aliases import aliases_of
from tidemill.core.contracts import Generator, Pieces
from tidemill.core.errors import ModelNotReady, TidemillError, UnknownLabel, UnknownModel, UnknownVersion
from tidemill.core.package import ModelPackage
from tidemill.core.price import Tariff
from tidemill.core.request import InferenceRequest, Piece, Predict, Usage
from tidemill.core.tensor import Tensors, rows
from tidemill.core.text import short
from tidemill.deploy import embedder, stages
from tidemill.deploy.absent import absent_words
from tidemill.deploy.aside import aside
from tidemill.deploy.embedding import EmbedRun
from tidemill.deploy.ensemble import EnsembleRun
from tidemill.deploy.opening import Opened, open_engine
from tidemill.deploy.raw import RawRun
from tidemill.deploy.replica import FleetPolicy, Replica, State
from tidemill.deploy.steps import Steps, StepThreads, prepare
from tidemill.deploy.words import WordsRun, generates, open_generator
from tidemill.deploy.words import end as end_generator
from tidemill.engine.lane import Lane, LanePolicy

log = logging.getLogger(__name__)

__all__ = ["FleetPolicy", "LocalFleet", "Replica", "State"]


class LocalFleet:
    """Loads packages, finds replicas, runs requests. Belongs to the loop; loading itself happens on a thread."""

    def __init__(self, policy: FleetPolicy) -> None:
        self._policy = policy
        self._replicas: dict[tuple[str, int], Replica] = {}
        self._newest: dict[str, Replica] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self.aliases = aliases_of(policy.settings.aliases)
        self.parked: set[str] = set()
        self._threads = StepThreads(policy.steps.threads)
        self._leaving: weakref.WeakValueDictionary[tuple[str, int], Replica] = weakref.WeakValueDictionary()
        self._endings: dict[asyncio.Task[None], asyncio.Event] = {}

    def replicas(self) -> list[Replica]:
        """All of them, by name and version, the failed ones and those that are leaving too."""
        everyone = {**self._leaving, **self._replicas}
        return [everyone[key] for key in sorted(everyone)]

    def standing(self, name: str) -> list[Replica]:
        """The versions of `name` that are in their place, oldest first: without those that are leaving."""
        return [replica for (model, _), replica in sorted(self._replicas.items()) if model == name]

    def announce(self, package: ModelPackage) -> None:
        """Show `package` as LOADING, so that those who ask before its turn comes learn that it is on its way."""
        self._stand(Replica(package, self._policy))

    async def load(self, package: ModelPackage) -> Replica:
        """Load beside what serves; a package that is refused stands as FAILED with the reason, nothing else changes."""
        policy = self._policy
        replica = Replica(package, policy)
        before = self._stand(replica)
        inline_s_max = policy.inline_s_max if package.bounded else 0.0
        opening = partial(_open, replica.engine_name, package, policy)
        try:
            if generates(replica.engine_name):
                opened_generator = open_generator(replica.engine_name, package, policy.settings, policy.load_s_max)
                return self._speak(replica, await opened_generator, before)
            replica.steps, opened, replica.embedder = await aside(opening, policy.load_s_max, _drop)
            if isinstance(opened, stages.Ensemble):
                return self._chain(replica, opened, before)
        except (TidemillError, TimeoutError) as error:
            late = f"it was not loaded within {policy.load_s_max:g} s (--load-timeout-s)"
            return self._fail(replica, error.message if isinstance(error, TidemillError) else late)
        replica.adopt_opened(opened)
        self._replicas[replica.name, replica.version] = replica
        wish = package.config.batching
        lane_policy = LanePolicy(
            replica.batched,
            replica.rows_max,
            replica.waiting_max,
            inline_s_max,
            opened.padder,
            (policy.delay_ms_max if wish.max_delay_ms is None else wish.max_delay_ms) / 1000,
            wish.preferred,
            replica.joined - {""},
        )
        further = {name: each.engines for name, each in opened.further.items()}
        replica.lane = Lane(
            opened.engine, lane_policy, replica.stats, time.monotonic, opened.warm_up_s, opened.narrow, further
        )
        self._serve(replica)
        if before is not None:
            self._retire(before)
        return replica

    def _speak(self, replica: Replica, generator: Generator, before: Replica | None) -> Replica:
        """Let a language model serve, or one that other servers answer for."""
        replica.ask_there(generator)
        self._replicas[replica.name, replica.version] = replica
        self._serve(replica)
        if before is not None:
            self._retire(before)
        return replica

    def _serve(self, replica: Replica) -> None:
        replica.state, replica.reason = State.AVAILABLE, ""
        self._name_newest(replica.name)
        log.info(
            "model loaded",
            extra={"model": replica.name, "version": replica.version, "platform": replica.platform},
        )
        for name, reason in replica.signature.left_out:
            told = {"model": replica.name, "version": replica.version}
            log.warning("signature %r is not served: %s", name, reason, extra=told)
        self._settle()

    def _fail(self, replica: Replica, reason: str) -> Replica:
        replica.state, replica.reason = State.FAILED, reason
        log.error("model not loaded: %s", reason, extra={"model": replica.name, "version": replica.version})
        self._settle()
        return replica

    def _chain(self, replica: Replica, ensemble: stages.Ensemble, before: Replica | None) -> Replica:
        """Let an ensemble stand, which serves as soon as its stages do. Raises `RefusedModel` for what can never be."""
        asked = {each.name: self._asked(each) for each in self._replicas.values()}
        stages.check(replica.name, asked | {replica.name: self._asked(replica)})
        replica.ensemble = ensemble
        replica.adopt(ensemble.signature, rows_apart=False)
        key = replica.name, replica.version
        self._replicas[key] = replica
        self._settle()
        if before is not None and replica.state is State.FAILED:
            self._replicas[key] = before
        elif before is not None:
            self._retire(before)
        return replica

    def _settle(self) -> None:
        """Let ensembles serve whose stages do, in whatever order those came, and step back those that lack one, until
        it is there again. Each that is settled may be the stage of another."""
        for replica in list(self._replicas.values()):
            if replica.ensemble is None or replica.state is State.UNLOADING:
                continue
            reasons = [stages.lacks(each, self.find, self._replicas.values()) for each in replica.package.config.stage]
            serves = replica.state is State.AVAILABLE
            if any(reasons):
                reason = next(reason for reason in reasons if reason)
                if replica.state is not State.FAILED or replica.reason != reason:
                    self._step_back(replica, State.FAILED, reason)
            elif None not in reasons and not serves:
                self._serve(replica)
            elif None in reasons and serves:
                self._step_back(replica, State.LOADING, "a stage of it is being loaded")

    def _step_back(self, replica: Replica, state: State, reason: str) -> None:
        """Let an ensemble serve nobody, who would only be told that a stage is missing; it stays in its place."""
        served = replica.state is State.AVAILABLE
        replica.state, replica.reason = state, reason
        self._name_newest(replica.name)
        told = "ensemble serves no more: %s" if served else "ensemble does not serve: %s"
        log.error(told, reason, extra={"model": replica.name, "version": replica.version})
        self._settle()

    async def unload(self, name: str, version: int) -> None:
        """Send nobody there any more, let those who are there end, then give the engines back; what takes longer than
        `drain_s_max` ends later, and what still waits then is refused. A version that is not there is no error."""
        replica = self._replicas.pop((name, version), None)
        if replica is None:
            return
        self._name_newest(name)
        log.info("model is being unloaded", extra={"model": name, "version": version})
        ending = self._retire(replica)
        self._settle()
        del replica  # it ends when nobody holds it
        if ending is not None:
            await asyncio.wait([ending], timeout=self._policy.drain_s_max)

    def _retire(self, replica: Replica) -> asyncio.Task[None] | None:
        """Let `replica`, which is in its place no more, end once nobody holds it; the caller forgets it."""
        if replica.state is State.AVAILABLE:
            replica.state = State.UNLOADING
            self._leaving[replica.name, replica.version] = replica
        loop, left = asyncio.get_running_loop(), asyncio.Event()
        seconds_max = self._policy.drain_s_max
        if replica.generator is not None:
            end = end_generator(replica.generator, left, seconds_max)
        elif replica.lane is not None:
            end = _end(replica.lane, left, seconds_max)
        else:
            return None
        weakref.finalize(replica, _tell, loop, left).atexit = False
        ending = loop.create_task(end)
        self._endings[ending] = left
        ending.add_done_callback(self._endings.pop)
        return ending

    def _name_newest(self, name: str) -> None:
        serving = [each for each in self.standing(name) if each.state is State.AVAILABLE]
        if serving:
            self._newest[name] = serving[-1]
        else:
            self._newest.pop(name, None)

    def _stand(self, replica: Replica) -> Replica | None:
        """Show `replica` in its place, unless one that serves stands there: that one is given back, and serves on."""
        key = replica.name, replica.version
        standing = self._replicas.get(key)
        if standing is not None and standing.state is State.AVAILABLE:
            return standing
        self._replicas[key] = replica
        self.parked.discard(replica.name)
        return None

    def park(self, name: str) -> None:
        """Tell those who ask for `name` that it was unloaded by hand, until it stands here again."""
        self.parked.add(name)

    def refuse(self, name: str, version: int, reason: str) -> Replica:
        """Let a version that was refused on disk stand as FAILED, so that those who ask for it learn why; one that
        serves in its place serves on."""
        replica = Replica(ModelPackage(name, version, Path(), "unknown", 0), self._policy)
        replica.state, replica.reason = State.FAILED, reason
        self._stand(replica)
        log.error("model refused: %s", reason, extra={"model": name, "version": version})
        self._settle()
        return replica

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Replica:
        name = self.aliases.get(name, name)
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
        name = self.aliases.get(name, name)
        found = [replica for replica in self.replicas() if replica.name == name]
        if not found:
            raise self._not_found(name, None)
        return found

    def label(self, name: str, labels: Mapping[str, int]) -> None:
        """Give the versions of `name` these labels, and no others."""
        if labels:
            self._labels[name] = dict(labels)
        else:
            self._labels.pop(name, None)
        self._settle()  # a stage may be asked by its label

    def labels(self, name: str) -> dict[str, int]:
        """Label -> version of `name`, whether that is served or not."""
        return dict(self._labels.get(name, {}))

    def _labelled(self, name: str, label: str) -> int:
        mine = self.standing(name)
        if not mine:
            raise self._not_found(name, None)
        labels = self._labels.get(name, {})
        if label not in labels:
            known = f"its labels are {', '.join(sorted(labels))}" if labels else "it has none at all"
            raise UnknownLabel(f"model {name!r} has no label {short(label)}; {known}")
        version = labels[label]
        if not any(replica.version == version for replica in mine):
            served = ", ".join(str(replica.version) for replica in mine)
            raise UnknownLabel(
                f"label {label!r} of model {name!r} stands for version {version}, which is not served;"
                f" served are {served}"
            )
        return version

    def _not_found(self, name: str, version: int | None) -> TidemillError:
        mine = self.standing(name)
        if not mine:
            served = ", ".join(sorted({model for model, _ in self._replicas})) or "none"
            return UnknownModel(absent_words(name, served, name in self.parked))
        wanted = [replica for replica in mine if version in (None, replica.version)]
        if not wanted:
            versions = ", ".join(str(replica.version) for replica in mine)
            return UnknownVersion(f"model {name!r} has no version {version}; served are {versions}")
        replica = wanted[-1]
        why = "; this server's log and `tidemill show` tell why" if replica.state is State.FAILED else ""
        if replica.ensemble is not None and replica.reason:
            why = f": {replica.reason}"
        return ModelNotReady(f"model {name!r} version {replica.version} is {replica.state}{why}")

    def tariff(self, name: str, version: int) -> Tariff:
        """Raises what `find` raises for a version that was unloaded before anybody held it."""
        return self._held(name, version).tariff

    def run(self, request: InferenceRequest) -> AbstractAsyncContextManager[Pieces]:
        replica = self._held(request.model, request.version)
        if replica.generator is not None:
            return WordsRun(replica, request, replica.generator.run(request))
        if replica.embedder is not None and not isinstance(request.work, Predict):
            embedding = EmbedRun(self, replica, replica.embedder, request, self._threads, self._policy.steps)
            return WordsRun(replica, request, embedding, laned=True)
        if request.tensors.media:
            return RawRun(self, replica, request, self._threads, self._policy.steps)
        if replica.ensemble is not None:
            return EnsembleRun(self, replica, replica.ensemble, request, self._threads, self._policy.steps)
        return Run(replica, request)

    def _asked(self, replica: Replica) -> tuple[str, ...]:
        """The models that an ensemble asks."""
        return tuple(self.aliases.get(stage.model, stage.model) for stage in replica.package.config.stage)

    def _held(self, name: str, version: int) -> Replica:
        """The replica in its place, or one that has left it and that a caller still holds."""
        key = name, version
        replica = self._replicas.get(key) or self._leaving.get(key)
        if replica is None:
            raise self._not_found(name, version)
        return replica

    async def close(self) -> None:
        """Finish what waits in every lane, then give the engines back."""
        for left in self._endings.values():
            left.set()
        lanes = []
        for replica in self._replicas.values():
            if replica.state is State.AVAILABLE:
                replica.state = State.UNLOADING
            if replica.lane is not None:
                lanes.append(replica.lane.close())
            if replica.generator is not None:
                lanes.append(replica.generator.close())
        await asyncio.gather(*lanes, *self._endings)
        self._threads.close()


Prepared = tuple[Steps, Opened | stages.Ensemble, embedder.Embedder | None]


def _open(engine_name: str, package: ModelPackage, policy: FleetPolicy) -> Prepared:
    """On a thread. Raises `RefusedModel`."""
    steps = prepare(package, policy.steps.bounds)
    if engine_name == stages.ENSEMBLE:
        return steps, stages.prepare(package, policy.steps.bounds), None
    opened = open_engine(
        engine_name,
        policy.filled(package),
        policy.threads,
        policy.instances,
        policy.warm_ups,
        policy.load_s_max,
        policy.signatures_max,
    )
    try:
        return steps, opened, embedder.prepare(package, opened.engine.signature, policy.steps.bounds)
    except TidemillError:
        opened.close()
        raise


def _drop(late: Prepared) -> None:
    if isinstance(late[1], Opened):
        late[1].close()


def _tell(loop: asyncio.AbstractEventLoop, left: asyncio.Event) -> None:
    """From whatever thread let go last."""
    with contextlib.suppress(RuntimeError):  # the loop is gone
        loop.call_soon_threadsafe(left.set)


async def _end(lane: Lane, left: asyncio.Event, seconds_max: float) -> None:
    """Close `lane` once everybody has left it, or after `seconds_max`; then only the batch that runs is finished."""
    try:
        await asyncio.wait_for(left.wait(), seconds_max)
    except TimeoutError:
        lane.dismiss()
    await lane.close()


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
        work = self._request.tensors
        if work.signature not in self._replica.joined:
            return Piece(tensors, Usage())
        return Piece(tensors, Usage(1, rows(work.inputs) or 1))
