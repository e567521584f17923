"""One request through a fleet of its own, without a server; runs in the command line's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from tidemill.assemble.choice import choose
from tidemill.assemble.owner import fleet_policy
from tidemill.core.contracts import Served
from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.request import InferenceRequest, Predict
from tidemill.core.settings import Settings
from tidemill.core.tensor import Tensors
from tidemill.deploy.local import LocalFleet, State


class Once(msgspec.Struct, frozen=True):
    """What was answered, and how long that took, steps and stages included."""

    tensors: Tensors
    spent_s: float


def once(settings: Settings, package: ModelPackage, work: Callable[[Served], Predict]) -> Once:
    """Load `package` and, where it is an ensemble, the models that it asks; then answer what `work` makes of it.

    Raises `RefusedModel`, `UnknownModel`, and what a request is refused with.
    """
    return asyncio.run(_once(settings, package, work))


async def _once(settings: Settings, package: ModelPackage, work: Callable[[Served], Predict]) -> Once:
    fleet = LocalFleet(fleet_policy(settings))
    try:
        for each in _needed(settings, package):
            replica = await fleet.load(each)
            if replica.state is State.FAILED:
                raise RefusedModel(f"{each.name}: {replica.reason}")
        served = fleet.find(package.name, package.version)
        until = time.monotonic() + settings.request_timeout_ms / 1000
        request = InferenceRequest(package.name, package.version, work(served), "try", "try", until)
        started = time.perf_counter()
        async with fleet.run(request) as pieces:
            piece = await anext(pieces)
        return Once(piece.tensors, time.perf_counter() - started)
    finally:
        await fleet.close()


def _needed(settings: Settings, package: ModelPackage) -> list[ModelPackage]:
    """`package` behind all that it asks, out of the repository."""
    found: dict[str, ModelPackage] = {}

    def add(each: ModelPackage, above: tuple[str, ...]) -> None:
        for stage in each.config.stage:
            if stage.model in above:
                raise RefusedModel(f"{each.name}: its stages lead back to {stage.model!r}")
            if stage.model in found:
                continue
            choice = choose(settings, [stage.model])[-1]
            if choice.package is None:
                raise RefusedModel(f"{stage.model}: {choice.reason}")
            add(choice.package, (*above, stage.model))
        found[each.name] = each

    add(package, (package.name,))
    return list(found.values())
