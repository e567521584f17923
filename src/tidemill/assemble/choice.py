"""Which models a command means, and which versions of them; read once, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidemill.core.aliases import aliases_of
from tidemill.core.errors import InvalidSetting, RefusedModel
from tidemill.core.package import ModelEntry, ModelPackage, VersionPolicy
from tidemill.core.settings import Settings
from tidemill.repository import layout, text_proto, tf_config
from tidemill.repository.look import look


class Choice(msgspec.Struct, frozen=True):
    """A version to serve: checked, or refused with the reason."""

    name: str
    version: int
    package: ModelPackage | None
    reason: str = ""


def choose(settings: Settings, models: Sequence[str]) -> list[Choice]:
    """The versions that `MODEL ...` means; all of the repository when none is named.

    Raises `UnknownModel`, and `InvalidSetting` for two models of one name.
    """
    aliases = aliases_of(settings.aliases)
    wanted = [aliases.get(model, model) for model in models] or layout.names(settings.models)
    chosen: list[Choice] = []
    for model in wanted:
        name, versions = layout.locate(settings.models, model)
        if any(each.name == name for each in chosen):
            raise InvalidSetting(
                f"two models would be called {name!r}, the second is {model}; give it a folder NAME/VERSION"
            )
        for number in VersionPolicy.parse(settings.version_policy).chosen(versions):
            try:
                chosen.append(Choice(name, number, layout.package(name, number, versions[number])))
            except RefusedModel as error:
                chosen.append(Choice(name, number, None, error.message))
    return chosen


def chosen(settings: Settings, wanted: Sequence[ModelEntry]) -> list[Choice]:
    """The versions that `serve` would begin with of the entries `wanted`, each checked. Raises `UnknownModel`."""
    found: list[Choice] = []
    for entry in wanted:
        there = layout.versions_at(entry.name, entry.base_path)
        own = look(entry)
        policy = own.policy or VersionPolicy.parse(settings.version_policy)
        for number in policy.chosen(there):
            try:
                package = layout.package(entry.name, number, there[number], entry.config)
                found.append(Choice(entry.name, number, package))
            except RefusedModel as error:
                found.append(Choice(entry.name, number, None, error.message))
    return found


def entries(settings: Settings, models: Sequence[str]) -> list[ModelEntry]:
    """What `serve MODEL ...` serves: what the config file lists where there is one; all of the repository when nothing
    is named.

    Raises `UnknownModel`, and `InvalidSetting` for two models of one name, for an alias that is a model's name, and for
    a config file beside models.
    """
    found = _entries(settings, models)
    aliases = aliases_of(settings.aliases)
    for each in found:
        if each.name in aliases:
            raise InvalidSetting(
                f"--aliases: {each.name!r} is to stand for {aliases[each.name]!r}, and is the name of a model itself;"
                " one of the two wants another name"
            )
    return found


def _entries(settings: Settings, models: Sequence[str]) -> list[ModelEntry]:
    if settings.model_config_file:
        return _listed(Path(settings.model_config_file).expanduser(), models)
    found: list[ModelEntry] = []
    for model in models or layout.names(settings.models):
        entry = layout.entry(settings.models, model)
        if any(each.name == entry.name for each in found):
            raise InvalidSetting(
                f"two models would be called {entry.name!r}, the second is {model}; give it a folder NAME/VERSION"
            )
        layout.versions_at(entry.name, entry.base_path)
        found.append(entry)
    return found


def _listed(file: Path, models: Sequence[str]) -> list[ModelEntry]:
    if models:
        raise InvalidSetting(f"{file} lists the models to serve, and so does the command: {', '.join(models)}")
    found = tf_config.models_of(text_proto.text_of(file), file)
    for entry in found:
        layout.versions_at(entry.name, entry.base_path)
    return found
