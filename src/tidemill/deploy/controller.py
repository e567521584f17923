"""`Models`: brings what stands to what is wanted, when asked and when the disk changes; runs on the owner's loop.

What to do is decided in `plan.py`; this file looks, does one step after the other, and keeps operations on one model in
line. What lies on disk is read on threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from tidemill.core.errors import InvalidSetting, RefusedModel, TidemillError, UnknownModel
from tidemill.core.package import Indexed, ModelConfig, ModelEntry, ModelPackage, VersionPolicy, overlaid
from tidemill.core.text import short
from tidemill.deploy.aside import aside
from tidemill.deploy.local import LocalFleet, State
from tidemill.deploy.plan import Load, Stands, assigned, next_step, settled
from tidemill.repository import layout
from tidemill.repository.look import Look, Stamp, look

log = logging.getLogger(__name__)

LABELS_MAX = 1000
"""Labels of one model that explicit calls may give."""
LABEL_LENGTH_MAX = 128
"""Characters of one of these."""

T = TypeVar("T")


class ControlPolicy(msgspec.Struct, frozen=True):
    """`versions` where a model says nothing. `whole`: every model of the repository is served, those that come later
    too. `settle_s`: a look of the watch takes a version for whole that has not changed for so long. `look_s_max`: the
    longest look at one model's files. `loads_max`: models opened at once. `free_labels`: a label may stand for a
    version that is not served."""

    versions: VersionPolicy = VersionPolicy()
    whole: bool = False
    settle_s: float = 2.0
    look_s_max: float = 600.0
    loads_max: int = 1
    free_labels: bool = False


class Told(NamedTuple):
    """`unloaded`: by an explicit call, and not loaded again until another."""

    policy: str
    labels: dict[str, int]
    unloaded: bool


class Tracked:
    """A model that is wanted, or was. `config` is that of an explicit load, `labels` are those of explicit calls;
    `parked`: unloaded by an explicit call. `tried`: what each version was last loaded from, in vain where `refused`;
    `seen`: since when its files are what they are; `there` and `policy`: the versions at the last look, and what picks
    from them; `looked`: that look; `pending`: some of it was not whole."""

    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry
        self.config: ModelConfig | None = None
        self.labels: dict[str, int] = {}
        self.parked = False
        self.tried: dict[int, Stamp] = {}
        self.refused: set[int] = set()
        self.seen: dict[int, tuple[Stamp, float]] = {}
        self.there: tuple[int, ...] = ()
        self.policy = VersionPolicy()
        self.looked: Look | None = None
        self.pending = False
        self.label_trouble: tuple[str, ...] = ()
        self.lock = asyncio.Lock()

    @property
    def wish(self) -> ModelEntry:
        """The entry under the configuration of an explicit load, which has the last word."""
        if self.config is None:
            return self.entry
        policy = None if self.config.versions.policy is not None else self.entry.policy
        config = overlaid(self.entry.config or ModelConfig(), self.config)
        return msgspec.structs.replace(self.entry, config=config, policy=policy)


class Controller:
    """The models of one service; `start` once, then ask; `close` before the fleet's."""

    def __init__(
        self,
        fleet: LocalFleet,
        repository: Path,
        entries: Sequence[ModelEntry],
        policy: ControlPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._repository = repository
        self._policy = policy
        self._whole = policy.whole
        self._clock = clock
        self._models = {entry.name: Tracked(entry) for entry in entries}
        self._opening = asyncio.Semaphore(policy.loads_max)
        self._reloading = asyncio.Lock()
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._closing = False

    # -- `Models` ------------------------------------------------------------------------------------------------------

    def index(self) -> list[Indexed]:
        known = {
            (each.name, each.version): Indexed(each.name, each.version, str(each.state), each.reason)
            for each in self._fleet.replicas()
        }
        there = {name: model.there for name, model in self._models.items()}
        for name in layout.names(self._repository):
            if not there.get(name):
                there[name] = tuple(layout.versions(self._repository / name))
        for name, versions in there.items():
            for version in versions:
                known.setdefault((name, version), Indexed(name, version, ""))
        return [known[key] for key in sorted(known)]

    def policy(self, name: str) -> VersionPolicy:
        if name not in self._models:
            raise UnknownModel(f"there is no model {short(name)}")
        return self._models[name].policy

    async def load(self, name: str, config: ModelConfig | None = None) -> None:
        await self._shielded(self._load(name, config), name)

    async def unload(self, name: str) -> None:
        await self._shielded(self._unload(name), name)

    async def reload(self, entries: Sequence[ModelEntry]) -> None:
        await self._shielded(self._reload(entries), "")

    # -- beside it -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load or refuse everything that is wanted; nothing is waited for to settle."""
        for alias, name in self._fleet.aliases.items():
            if name not in self._models:
                log.error("the alias %r stands for the model %r, which is not served", alias, name)
        for model in self._models.values():
            self._announce(model, await self._look(model))
        for model in list(self._models.values()):
            async with model.lock:
                await self._settle(model)

    def about(self) -> dict[str, Told]:
        """What is told of each model that is served, or was, beside its versions."""
        return {
            name: Told(model.policy.text, self._fleet.labels(name), model.parked)
            for name, model in self._models.items()
        }

    async def label(self, name: str, label: str, version: int) -> None:
        """Let `label` of `name` stand for `version` until the service ends or is reloaded. Raises `UnknownModel`,
        `InvalidSetting` for a version that is not served and for a label that no address could name."""
        async with self._locked(name) as model:
            if not label.isprintable() or set(label) & set("/:") or not 0 < len(label) <= LABEL_LENGTH_MAX:
                raise InvalidSetting(
                    f"label {short(label)} of model {name!r} cannot stand in an address: expected are 1 to"
                    f" {LABEL_LENGTH_MAX} visible characters, none of them / or :"
                )
            serving = self._serving(name)
            if version not in serving and not self._policy.free_labels:
                served = ", ".join(map(str, sorted(serving))) or "none"
                raise InvalidSetting(
                    f"label {short(label)} of model {name!r} cannot stand for version {version}, which is not served;"
                    f" served are {served}"
                )
            if label not in model.labels and len(model.labels) >= LABELS_MAX:
                raise InvalidSetting(f"model {name!r} has {LABELS_MAX} labels, the most that can be given to one")
            model.labels[label] = version
            self._fleet.label(name, {**self._fleet.labels(name), label: version})

    async def look_round(self) -> None:
        """Look at every model on disk once and follow what changed; a model that is at work is left for the next
        time."""
        if self._whole:
            for name in await self._aside(partial(layout.names, self._repository)):
                if name not in self._models:
                    self._models[name] = Tracked(ModelEntry(name, self._repository / name))
        at_work = set(self._tasks.values())
        wishes = {
            name: model.wish
            for name, model in self._models.items()
            if not model.parked and not model.lock.locked() and name not in at_work
        }
        looks = await self._aside(lambda: {name: look(wish) for name, wish in wishes.items()})
        for name, found in looks.items():
            model = self._models.get(name)
            if model is not None and (found.trouble or model.pending or found != model.looked):
                self._spawn(self._follow(name, model), name)

    async def watch(self, every_s: float) -> None:
        """`look_round` until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look_round()
            except (TidemillError, TimeoutError, OSError) as error:
                log.error("the repository could not be looked at: %s", error)

    async def idle(self) -> None:
        """Return when nothing that was begun is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End what is under way; an engine that is being opened is closed when it is there."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- operations, each under its model's lock -----------------------------------------------------------------------

    async def _load(self, name: str, config: ModelConfig | None) -> None:
        if name not in self._models:
            self._models[name] = self._in_repository(name)
        async with self._locked(name) as model:
            before, parked = model.config, model.parked
            model.config, model.parked = config, False
            try:
                refused = await self._settle(model, again=True)
            except UnknownModel:
                model.config, model.parked = before, parked
                if not self._fleet.standing(name) and not model.there:
                    del self._models[name]
                raise
        if refused:
            raise RefusedModel("; ".join(refused))

    async def _unload(self, name: str) -> None:
        async with self._locked(name) as model:
            model.parked = True
            await self._empty(model)
            self._fleet.park(name)

    async def _reload(self, entries: Sequence[ModelEntry]) -> None:
        names = [entry.name for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidSetting(f"{', '.join(map(repr, twice))}: named twice; each model has one entry")
        async with self._reloading:
            self._whole = False
            errors: list[TidemillError] = []
            for entry in entries:
                self._models.setdefault(entry.name, Tracked(entry))
                async with self._locked(entry.name) as model:
                    model.entry, model.config, model.parked, model.labels = entry, None, False, {}
                    try:
                        refused = await self._settle(model, again=True)
                    except UnknownModel as error:
                        errors.append(error)
                        continue
                    if refused:
                        errors.append(RefusedModel("; ".join(refused)))
                    elif model.label_trouble:
                        errors.append(InvalidSetting("; ".join(model.label_trouble)))
            for name in [name for name in self._models if name not in names]:
                with contextlib.suppress(UnknownModel):
                    async with self._locked(name) as model:
                        await self._empty(model)
                        del self._models[name]
        if errors:
            raise errors[0]

    async def _follow(self, name: str, model: Tracked) -> None:
        async with model.lock:
            if self._models.get(name) is not model or model.parked:
                return
            try:
                await self._settle(model, patient=True)
            except UnknownModel as error:
                if not model.entry.base_path.parent.is_dir():
                    return  # what lies above is gone too: perhaps a disk that comes back
                if self._fleet.standing(name):
                    log.warning("a served model is gone: %s", error.message, extra={"model": name})
                await self._empty(model)
                if self._whole:
                    del self._models[name]
            except BaseException:
                model.looked = None  # so that the next look begins anew
                raise

    async def _settle(self, model: Tracked, again: bool = False, patient: bool = False) -> list[str]:
        """Bring `model` to what is wanted of it; the reasons of what was refused. `again`: also what failed before as
        it is. `patient`: only versions that are whole. Raises `UnknownModel` where nothing is there."""
        name, wish = model.entry.name, model.wish
        found = await self._look(model)
        if found.trouble:
            raise UnknownModel(found.trouble)
        if found.fault and self._serving(name):
            return [found.fault]  # what serves is not touched on the word of a broken file
        wanted = self._wanted(model, found, patient)
        if not wanted:
            return [] if patient else [f"model {name!r}: its policy asks for none of the versions that are there"]
        if again:
            kept = self._serving(name) - model.refused
            model.tried = {version: stamp for version, stamp in model.tried.items() if version in kept}
        refused = []
        while not self._closing and (step := next_step(wanted, self._standing(model))) is not None:
            if isinstance(step, Load):
                model.tried[step.version] = wanted[step.version]
                model.refused.discard(step.version)
                if reason := await self._open(name, step.version, wanted[step.version].path, wish.config):
                    model.refused.add(step.version)
                    refused.append(f"model {name!r} version {step.version}: {reason}")
            else:
                await self._fleet.unload(name, step.version)
        self._label(model, found)
        return refused

    async def _open(self, name: str, version: int, path: Path, config: ModelConfig | None) -> str:
        """Load one version; why it was refused, "" where it was not."""
        self._fleet.announce(ModelPackage(name, version, path, "unknown", 0))
        if stands_for := self._fleet.aliases.get(name):
            reason = f"{name!r} is an alias of {stands_for!r} (--aliases); one of the two wants another name"
            return self._fleet.refuse(name, version, reason).reason
        async with self._opening:
            try:
                package = await self._aside(partial(layout.package, name, version, path, config))
            except (RefusedModel, OSError, TimeoutError) as error:
                replica = self._fleet.refuse(name, version, str(error) or "its files were not read in time")
            else:
                replica = await self._fleet.load(package)
        # The log tells the whole path; whoever asks for the reason learns no more than the name of the model's folder.
        for above in (path.parent.parent, path.parent):
            replica.hide(f"{above}{os.sep}")
        return replica.reason if replica.state is State.FAILED else ""

    async def _empty(self, model: Tracked) -> None:
        name = model.entry.name
        self._fleet.label(name, {})
        for version in [each.version for each in self._fleet.standing(name)]:  # none is held: it ends when none is
            await self._fleet.unload(name, version)
        model.tried.clear()
        self._fleet.parked.discard(name)

    # -- what is there, what stands ------------------------------------------------------------------------------------

    async def _look(self, model: Tracked) -> Look:
        try:
            found = await self._aside(partial(look, model.wish))
        except TimeoutError:
            return Look({}, trouble=f"{model.entry.base_path} was not read within {self._policy.look_s_max:g} s")
        model.there, model.looked = tuple(found.versions), found
        return found

    def _wanted(self, model: Tracked, found: Look, patient: bool) -> dict[int, Stamp]:
        """The stamps of the versions that the policy picks from those that are whole; a served one that is being
        written again counts as what it was."""
        now = self._clock()
        there, seen = {}, {}
        model.pending = False
        for version, each in found.versions.items():
            before = model.seen.get(version)
            seen[version] = before if before and before[0] == each.stamp else (each.stamp, now)
            if not patient or settled(each.stamp, each.whole, before, now, self._policy.settle_s):
                there[version] = each.stamp
                continue
            model.pending |= each.stamp != model.tried.get(version)
            if version in model.tried:
                there[version] = model.tried[version]
        model.seen = seen
        model.policy = found.policy or self._policy.versions
        return {version: there[version] for version in model.policy.chosen(there)}

    def _standing(self, model: Tracked) -> dict[int, Stands]:
        return {
            each.version: Stands(model.tried.get(each.version), each.state is State.AVAILABLE)
            for each in self._fleet.standing(model.entry.name)
        }

    def _serving(self, name: str) -> set[int]:
        return {each.version for each in self._fleet.standing(name) if each.state is State.AVAILABLE}

    def _label(self, model: Tracked, found: Look) -> None:
        name = model.entry.name
        wanted = {**found.labels, **model.labels}
        labels, trouble = assigned(wanted, self._fleet.labels(name), self._serving(name), self._policy.free_labels)
        self._fleet.label(name, labels)
        told = tuple(f"model {name!r}: {each}" for each in trouble)
        for each in told:
            if each not in model.label_trouble:
                log.error(each)
        model.label_trouble = told

    def _announce(self, model: Tracked, found: Look) -> None:
        for version in (found.policy or self._policy.versions).chosen(found.versions):
            path = found.versions[version].stamp.path
            self._fleet.announce(ModelPackage(model.entry.name, version, path, "unknown", 0))

    def _in_repository(self, name: str) -> Tracked:
        if layout.NAME.fullmatch(name) and (self._repository / name).is_dir():
            return Tracked(ModelEntry(name, self._repository / name))
        raise UnknownModel(f"there is no model {short(name)} in the repository")

    # -- order ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[Tracked]:
        """The model under its lock. Raises `UnknownModel`, also for one that went while this waited."""
        model = self._models.get(name)
        if model is None:
            raise UnknownModel(f"there is no model {short(name)}; the index lists those that are")
        async with model.lock:
            if self._models.get(name) is not model:
                raise UnknownModel(f"there is no model {short(name)} any more")
            yield model

    async def _shielded(self, operation: Coroutine[Any, Any, None], name: str) -> None:
        """Whoever asks may go away; what was begun is finished."""
        await asyncio.shield(self._spawn(operation, name))

    def _spawn(self, operation: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(operation)
        self._tasks[task] = name
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TidemillError):
            log.error("an operation on a model failed in a way that was not foreseen", exc_info=error,
                      extra={"model": name})  # fmt: skip

    async def _aside(self, function: Callable[[], T]) -> T:
        return await aside(function, self._policy.look_s_max, _nothing)


def _nothing(_: object) -> None:
    return
