"""Whether a service whose models are loaded takes traffic; pure."""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.core.contracts import Served


def unready(versions: Iterable[Served], readiness: str) -> list[str]:
    """Why not, for each version of a model that has none which serves; empty when ready.

    `readiness` is "all": one such model is enough, as with Triton; or "any": then one that serves is enough to be
    ready. A service without models is ready: they may be loaded later.
    """
    known = list(versions)
    serving = {each.name for each in known if each.state == "AVAILABLE"}
    if readiness == "any" and serving:
        return []
    return [f"model {each.name} version {each.version} is {each.state}" for each in known if each.name not in serving]
