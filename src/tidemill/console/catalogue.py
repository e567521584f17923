"""Every model that the service knows of, by its index, its overview and its lineage; pure, in the console's process."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.console.kinds import Kind, kind_of
from tidemill.console.snapshot import Compressed, Indexed, IndexedVersion, Model, Overview

NOT_LOADED = "NOT LOADED"
TONES = {"AVAILABLE": "good", "LOADING": "warn", "UNLOADING": "warn", "FAILED": "bad", NOT_LOADED: "soft"}
ORDER = ("AVAILABLE", "LOADING", "UNLOADING", "FAILED", NOT_LOADED)
"""The state of a model is the first of these that one of its versions is in."""


@dataclass(frozen=True, slots=True)
class Version:
    """`running` is what the overview tells of it, None for one that is not loaded."""

    number: int
    state: str
    reason: str
    size_bytes: int
    labels: tuple[str, ...]
    running: Model | None
    origin: Compressed | None


@dataclass(frozen=True, slots=True)
class Known:
    """One model; `versions` are newest first, at least one."""

    name: str
    policy: str
    unloaded: bool
    labels: tuple[tuple[str, int], ...]
    versions: tuple[Version, ...]

    @property
    def state(self) -> str:
        states = {version.state for version in self.versions}
        return next((each for each in ORDER if each in states), self.versions[0].state)

    @property
    def shown(self) -> Version:
        """The version that speaks for the model: the newest that serves, else the newest."""
        return next((each for each in self.versions if each.state == "AVAILABLE"), self.versions[0])

    @property
    def serving(self) -> tuple[Version, ...]:
        return tuple(each for each in self.versions if each.state == "AVAILABLE")

    @property
    def busy(self) -> bool:
        """Whether a version is on its way."""
        return any(each.state in ("LOADING", "UNLOADING") for each in self.versions)

    @property
    def kind(self) -> Kind | None:
        """None while nothing of it is loaded: what it reads is not known then."""
        running = self.shown.running
        if running is not None and running.speaks is not None:
            return Kind.CHAT
        return kind_of(running.accepts) if running and running.inputs else None

    @property
    def reason(self) -> str:
        return next((each.reason for each in self.versions if each.reason), "")


def merged(index: tuple[Indexed, ...], overview: Overview | None, lineage: tuple[Compressed, ...]) -> list[Known]:
    """Every model by name. The overview is the younger one: it has the last word on what is loaded."""
    running = {model.key: model for model in overview.models} if overview else {}
    origins = {each.key: each for each in lineage}
    indexed = {each.name: each for each in index}
    found = []
    for name in sorted({*indexed, *(key[0] for key in running)}):
        entry = indexed.get(name, Indexed(name))
        there = {each.version: each for each in entry.versions}
        numbers = sorted({*there, *(number for model, number in running if model == name)}, reverse=True)
        labels = tuple(sorted(entry.labels.items()))
        versions = tuple(
            _version(number, there.get(number), running.get((name, number)), labels, origins.get((name, number)))
            for number in numbers
        )
        if versions:
            found.append(Known(name, entry.policy, entry.unloaded, labels, versions))
    return found


def _version(
    number: int,
    there: IndexedVersion | None,
    running: Model | None,
    labels: tuple[tuple[str, int], ...],
    origin: Compressed | None,
) -> Version:
    mine = tuple(label for label, version in labels if version == number)
    if running is not None:
        return Version(number, running.state, running.reason, running.size_bytes, mine, running, origin)
    size = there.size_bytes if there else 0
    return Version(number, NOT_LOADED, there.reason if there else "", size, mine, None, origin)


def matching(models: list[Known], wanted: str) -> list[Known]:
    """Those of which every word of `wanted` is somewhere in name, kind, state or labels."""
    words = wanted.lower().split()
    return [model for model in models if all(word in _said(model) for word in words)]


def _said(model: Known) -> str:
    running = model.shown.running
    parts = [model.name, model.kind or "", model.state, running.engine if running else ""]
    return " ".join([*parts, *(label for label, _ in model.labels)]).lower()
