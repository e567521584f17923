"""What those are told who ask for a model that is not there; pure, used by the owner and by its fronts."""

from __future__ import annotations

from tidemill.core.text import short


def absent_words(name: str, served: str, parked: bool) -> str:
    """`served` names the models that are; `parked`: an explicit call unloaded this one."""
    if parked:
        return f"model {short(name)} was unloaded by hand; POST /v2/repository/models/{name}/load loads it again"
    return f"there is no model {short(name)}; served are {served}"
