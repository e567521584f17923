"""What a front knows of the models that another process serves; runs in the front.

The owner sends the whole table whenever it changes. A front finds models in it as the owner would, and counts what it
refused until the next report.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping

from tidemill.core.errors import ModelNotReady, TidemillError, UnknownLabel, UnknownModel, UnknownVersion
from tidemill.core.running import Counts, Running
from tidemill.core.text import short
from tidemill.deploy.absent import absent_words
from tidemill.wire.messages import Failures, Model, Table

AVAILABLE = "AVAILABLE"
FAILED = "FAILED"
EMPTY = Table((), {}, ready=False, draining=False, grpc_port=0)


class Refusals:
    """Requests refused or failed since they were last taken, by model, version and code; the loop's."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, str], int] = {}

    def add(self, model: str, version: int, code: str) -> None:
        key = model, version, code
        self._counts[key] = self._counts.get(key, 0) + 1

    def take(self) -> tuple[Failures, ...]:
        """All of them, forgotten from now on."""
        counts, self._counts = self._counts, {}
        return tuple(Failures(*key, count) for key, count in counts.items())


class Mirrored:
    """`Served`, of a model in another process. How many wait there is known there alone: `waiting` is 0."""

    __slots__ = (
        "__weakref__",
        "_refusals",
        "_running",
        "accepts",
        "embeds",
        "labels",
        "name",
        "platform",
        "reason",
        "serial",
        "signature",
        "speaks",
        "state",
        "tariff",
        "version",
        "waiting",
    )

    def __init__(self, model: Model, refusals: Refusals) -> None:
        self.serial = model.serial
        self.name = model.name
        self.version = model.version
        self.signature = model.signature
        self.labels = model.labels
        self.platform = model.platform
        self.accepts = model.accepts
        self.speaks = model.speaks
        self.embeds = model.embeds
        self._running = model.running
        self.tariff = model.tariff
        self.state = model.state
        self.reason = model.reason
        self.waiting = 0
        self._refusals = refusals

    def running(self) -> Running:
        return self._running

    def counts(self) -> Counts:
        """What ran in this process: nothing. Those who ask for statistics are answered by the owner, whole."""
        return Counts()

    def failed(self, code: str) -> None:
        self._refusals.add(self.name, self.version, code)


class Mirror:
    """The models of the last table. What a request has found in an earlier one serves it on; `release` is told the
    serial of each that is served no more, once no request holds it."""

    def __init__(self, refusals: Refusals, release: Callable[[int], None] = lambda serial: None) -> None:
        self._refusals = refusals
        self._release = release
        self._serving: dict[int, Mirrored] = {}
        self._versions: dict[str, list[Mirrored]] = {}
        self.show(EMPTY)

    def show(self, table: Table) -> None:
        """Know `table`, and nothing of the one before."""
        self.ready = table.ready
        self.draining = table.draining
        self.grpc_port = table.grpc_port
        self.aliases = table.aliases
        self._labels = table.labels
        self._parked = table.parked
        before, self._serving, self._versions = self._serving, {}, {}
        for model in sorted(table.models, key=lambda each: (each.name, each.version)):
            self._versions.setdefault(model.name, []).append(self._shown(model, before))
        self._found: dict[tuple[str, int | None], Mirrored] = {}
        for name, versions in self._versions.items():
            for each in versions:
                if each.state == AVAILABLE:
                    self._found[name, each.version] = each
                    self._found[name, None] = each  # the newest comes last

    def _shown(self, model: Model, before: Mapping[int, Mirrored]) -> Mirrored:
        """The one that requests may hold already, where it serves on."""
        found = before.get(model.serial)
        if found is None:
            found = Mirrored(model, self._refusals)
            if model.serial:
                weakref.finalize(found, self._release, model.serial).atexit = False
        if model.serial:
            self._serving[model.serial] = found
        return found

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Mirrored:
        """As `Fleet.find`."""
        name = self.aliases.get(name, name)
        if label is not None:
            version = self._labelled(name, label)
        found = self._found.get((name, version))
        if found is None:
            raise self._not_found(name, version)
        return found

    def replicas(self) -> list[Mirrored]:
        """As `Fleet.replicas`."""
        return [each for name in sorted(self._versions) for each in self._versions[name]]

    def versions(self, name: str) -> list[Mirrored]:
        """As `Fleet.versions`."""
        name = self.aliases.get(name, name)
        if name not in self._versions:
            raise self._not_found(name, None)
        return list(self._versions[name])

    def _labelled(self, name: str, label: str) -> int:
        if name not in self._versions:
            raise self._not_found(name, None)
        labels = self._labels.get(name, {})
        if label not in labels:
            known = f"its labels are {', '.join(sorted(labels))}" if labels else "it has none at all"
            raise UnknownLabel(f"model {name!r} has no label {short(label)}; {known}")
        version = labels[label]
        if not any(each.version == version for each in self._versions[name]):
            raise UnknownLabel(
                f"label {label!r} of model {name!r} stands for version {version}, which is not served;"
                f" served are {_listed(self._versions[name])}"
            )
        return version

    def _not_found(self, name: str, version: int | None) -> TidemillError:
        mine = self._versions.get(name)
        if mine is None:
            served = ", ".join(sorted(self._versions)) or "none"
            return UnknownModel(absent_words(name, served, name in self._parked))
        wanted = [each for each in mine if version in (None, each.version)]
        if not wanted:
            return UnknownVersion(f"model {name!r} has no version {version}; served are {_listed(mine)}")
        why = "; this server's log and `tidemill show` tell why" if wanted[-1].state == FAILED else ""
        return ModelNotReady(f"model {name!r} version {wanted[-1].version} is {wanted[-1].state}{why}")


def _listed(versions: Iterable[Mirrored]) -> str:
    return ", ".join(str(each.version) for each in versions)
