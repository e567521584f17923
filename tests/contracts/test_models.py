"""`Models`: loading and unloading while the service runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fakes import HALVE, FakeFleet, FakeModels, FakeServed, halve
from small_models import echo
from tidemill.core.contracts import Fleet, Models
from tidemill.core.errors import TidemillError, UnknownModel
from tidemill.core.package import ModelConfig, ModelEntry, VersionPolicy
from tidemill.deploy.controller import Controller, ControlPolicy
from tidemill.deploy.local import FleetPolicy, LocalFleet


async def _fake(folder: Path) -> AsyncIterator[tuple[Models, Fleet]]:
    fleet = FakeFleet(*(FakeServed(name, version, HALVE, halve) for name, version in (("m", 2), ("m", 1), ("n", 1))))
    yield FakeModels(fleet), fleet


async def _controller(folder: Path) -> AsyncIterator[tuple[Models, Fleet]]:
    for name, version in (("m", 2), ("m", 1), ("n", 1)):
        echo(folder, name, "FP32", version=version)
    fleet = LocalFleet(FleetPolicy("auto", 1, 1, 8, 100, 0.0, 7))
    policy = ControlPolicy(versions=VersionPolicy(all_versions=True))
    made = Controller(fleet, folder, [ModelEntry(name, folder / name) for name in ("m", "n")], policy)
    await made.start()
    yield made, fleet
    await made.close()
    await fleet.close()


KINDS: dict[str, Callable[[Path], AsyncIterator[tuple[Models, Fleet]]]] = {"fake": _fake, "controller": _controller}


@pytest.fixture(params=KINDS)
async def both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Models, Fleet]]:
    async for made in KINDS[request.param](tmp_path):
        yield made


async def test_what_is_unloaded_is_still_in_the_index_and_can_be_loaded_again(both: tuple[Models, Fleet]) -> None:
    models, fleet = both
    await models.unload("m")
    with pytest.raises(TidemillError):
        fleet.find("m")
    told = {(each.name, each.version): each.state for each in models.index()}
    assert told["n", 1] == "AVAILABLE"
    assert all(told[key] != "AVAILABLE" for key in told if key[0] == "m")
    await models.load("m", ModelConfig(instances=2))
    assert fleet.find("m").version == 2


async def test_index_is_ordered_by_name_and_version(both: tuple[Models, Fleet]) -> None:
    keys = [(each.name, each.version) for each in both[0].index()]
    assert keys == sorted(keys)


async def test_the_policy_tells_which_versions_are_wanted(both: tuple[Models, Fleet]) -> None:
    assert both[0].policy("m").chosen([1, 2]) == [1, 2]
    with pytest.raises(UnknownModel, match="'nobody'"):
        both[0].policy("nobody")


async def test_nobody_loads_or_unloads_what_is_not_there(both: tuple[Models, Fleet]) -> None:
    for act in (both[0].load, both[0].unload):
        with pytest.raises(UnknownModel, match="'nobody'"):
            await act("nobody")
