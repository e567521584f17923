"""Which versions of which models are served; read once, before the owner starts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tidemill.core.errors import InvalidSetting, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.repository import layout


class Choice(msgspec.Struct, frozen=True):
    """A version to serve: checked, or refused with the reason."""

    name: str
    version: int
    package: ModelPackage | None
    reason: str = ""


def choose(settings: Settings, models: Sequence[str]) -> list[Choice]:
    """What `serve MODEL ...` serves; all of the repository when none is named.

    Raises `UnknownModel`, and `InvalidSetting` for two models of one name.
    """
    wanted = models or layout.names(settings.models)
    chosen: list[Choice] = []
    for model in wanted:
        name, versions = layout.locate(settings.models, model)
        if any(each.name == name for each in chosen):
            raise InvalidSetting(
                f"two models would be called {name!r}, the second is {model}; give it a folder NAME/VERSION"
            )
        numbers = list(versions)[-1:] if settings.version_policy == "latest" else list(versions)
        for number in numbers:
            try:
                chosen.append(Choice(name, number, layout.package(name, number, versions[number])))
            except RefusedModel as error:
                chosen.append(Choice(name, number, None, error.message))
    return chosen
