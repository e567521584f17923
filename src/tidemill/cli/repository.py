"""Whether the repository that somebody named is there; runs in the command line's process."""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Origin, Settings


def missing(settings: Settings, origins: Iterable[Origin]) -> str:
    """What is wrong with the folder of models; "" where it is there, was named by nobody, or is not asked for.

    The usual folder need not be there: a service may begin with nothing.
    """
    if settings.model_config_file or settings.models.is_dir():
        return ""
    origin = next(each.origin for each in origins if each.name == "models")
    if origin == "default":
        return ""
    told = {"flag": "--models", "environment": "TIDEMILL_MODELS", "file": "`models` of the settings file"}[origin]
    fault = "is no folder" if settings.models.exists() else "is not there"
    return f"{told}: {settings.models} {fault}; make it, or name the folder that holds NAME/VERSION/..."


def check(settings: Settings, origins: Iterable[Origin]) -> None:
    """Raises `InvalidSetting`."""
    if reason := missing(settings, origins):
        raise InvalidSetting(reason)
