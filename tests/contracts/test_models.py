"""`Models`: loading and unloading while the service runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from fakes import HALVE, FakeFleet, FakeModels, FakeServed, halve
from tidemill.core.contracts import Fleet, Models
from tidemill.core.errors import UnknownModel
from tidemill.core.package import ModelConfig


async def _fake() -> AsyncIterator[tuple[Models, Fleet]]:
    fleet = FakeFleet(*(FakeServed(name, version, HALVE, halve) for name, version in (("m", 2), ("m", 1), ("n", 1))))
    yield FakeModels(fleet), fleet


KINDS: dict[str, Callable[[], AsyncIterator[tuple[Models, Fleet]]]] = {"fake": _fake}


@pytest.fixture(params=KINDS)
async def both(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Models, Fleet]]:
    async for made in KINDS[request.param]():
        yield made


async def test_what_is_unloaded_is_still_in_the_index_and_can_be_loaded_again(both: tuple[Models, Fleet]) -> None:
    models, fleet = both
    await models.unload("m")
    with pytest.raises(UnknownModel):
        fleet.find("m")
    told = {(each.name, each.version): each.state for each in models.index()}
    assert told["n", 1] == "AVAILABLE"
    assert all(told[key] != "AVAILABLE" for key in told if key[0] == "m")
    await models.load("m", ModelConfig(instances=2))
    assert fleet.find("m").version == 2


async def test_index_is_ordered_by_name_and_version(both: tuple[Models, Fleet]) -> None:
    keys = [(each.name, each.version) for each in both[0].index()]
    assert keys == sorted(keys)


async def test_nobody_loads_or_unloads_what_is_not_there(both: tuple[Models, Fleet]) -> None:
    for act in (both[0].load, both[0].unload):
        with pytest.raises(UnknownModel, match="'nobody'"):
            await act("nobody")
