"""`Fleet`: which replica answers, and the way there and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import crafted
from fakes import FakeFleet, FakeLedger, FakeServed
from links import linked
from tidemill.account.keys import Open
from tidemill.account.ledger import FreeLedger
from tidemill.core.contracts import Fleet
from tidemill.core.errors import UnknownModel, UnknownVersion
from tidemill.core.request import InferenceRequest, Predict, Usage
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.deploy.local import FleetPolicy, LocalFleet
from tidemill.serve.answer import Service
from tidemill.serve.queue import BoundedQueue

POLICY = FleetPolicy("auto", 1, 1, 8, 100, 1.0, 7)
X = np.arange(6, dtype=np.float32).reshape(3, 2)


async def _local(folder: Path) -> AsyncIterator[Fleet]:
    fleet = LocalFleet(POLICY)
    for version in (1, 10, 2):
        path = crafted.save(folder / str(version), crafted.identity())
        await fleet.load(msgspec.structs.replace(crafted.package(path), version=version))
    yield fleet
    await fleet.close()


async def _fake(folder: Path) -> AsyncIterator[Fleet]:
    specs = (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),)
    yield FakeFleet(
        *[FakeServed("m", version, Signature(*specs), lambda given: {"y": given["x"]}) for version in (10, 2, 1)]
    )


async def _remote(folder: Path) -> AsyncIterator[Fleet]:
    """The local one, over a link."""
    async for fleet in _local(folder):
        service = Service(Open(), BoundedQueue(64, lambda: False), FreeLedger(), fleet)
        async with linked(service, fleet.versions("m")) as ends:
            yield ends.fleet


async def _booked(folder: Path) -> AsyncIterator[Fleet]:
    """The same, where each answer waits for its charge."""
    async for fleet in _local(folder):
        service = Service(Open(), BoundedQueue(64, lambda: False), FakeLedger(), fleet)
        async with linked(service, fleet.versions("m"), charging=True) as ends:
            yield ends.fleet


KINDS = {"local": _local, "fake": _fake, "remote": _remote, "remote and booked": _booked}


@pytest.fixture(params=KINDS)
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    async for made in KINDS[request.param](tmp_path):
        yield made


def asked(version: int = 10) -> InferenceRequest:
    return InferenceRequest("m", version, Predict({"x": X}), "r", "c", asyncio.get_running_loop().time() + 1e6)


async def test_version_is_the_one_asked_for_or_the_newest(fleet: Fleet) -> None:
    assert fleet.find("m").version == 10
    assert [fleet.find("m", version).version for version in (1, 2, 10)] == [1, 2, 10]
    assert fleet.find("m").name == "m"


@pytest.mark.parametrize("name", ["", "M", "m ", "gone"])
async def test_unknown_model_is_told_apart_from_unknown_version(fleet: Fleet, name: str) -> None:
    for version in (None, 1):
        with pytest.raises(UnknownModel, match=repr(name)):
            fleet.find(name, version)
    for version in (0, 3, -1, 10**18):
        with pytest.raises(UnknownVersion, match=str(version)):
            fleet.find("m", version)


async def test_what_is_found_can_be_asked(fleet: Fleet) -> None:
    served = fleet.find("m")
    served.signature.check({"x": X})
    assert served.waiting == 0
    assert served.tariff.call_nanos > 0
    served.failed("input.shape")


async def test_what_is_found_tells_how_it_runs_and_what_was_counted(fleet: Fleet) -> None:
    running = fleet.find("m").running()
    assert running.rows_max > 0
    assert running.instances >= 1
    assert fleet.find("m").counts().failed.count == 0


async def test_all_replicas_are_told_by_name_and_version(fleet: Fleet) -> None:
    assert [(each.name, each.version) for each in fleet.replicas()] == [("m", 1), ("m", 2), ("m", 10)]


async def test_answer_comes_in_pieces_of_which_the_last_alone_tells_the_usage(fleet: Fleet) -> None:
    async with fleet.run(asked()) as pieces:
        found = [piece async for piece in pieces]
    assert [piece.usage for piece in found] == [Usage(calls=1, rows=3)]
    assert np.array_equal(found[-1].tensors["y"], X)


async def test_leaving_early_is_no_fault_and_harms_nobody(fleet: Fleet) -> None:
    async with fleet.run(asked()):
        pass
    with pytest.raises(ZeroDivisionError):
        async with fleet.run(asked()):
            _ = 1 / 0
    async with fleet.run(asked(1)) as pieces:
        assert len([piece async for piece in pieces]) == 1


async def test_many_at_once_are_all_answered(fleet: Fleet) -> None:
    async def one(version: int) -> int:
        async with fleet.run(asked(version)) as pieces:
            return len([piece async for piece in pieces])

    assert await asyncio.gather(*[one(version) for version in (1, 2, 10) * 10]) == [1] * 30
