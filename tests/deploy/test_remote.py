"""What a front's fleet and the owner's end of its link make of each other, beyond the contract of a fleet."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest

from fakes import CALLER, HALVE, FakeServed, FakeService, halve
from links import linked, told
from tidemill.core.contracts import Pieces
from tidemill.core.errors import (
    FrameTooLarge,
    LinkLost,
    ModelNotReady,
    Overloaded,
    RequestTooLarge,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from tidemill.core.price import Tariff
from tidemill.core.request import InferenceRequest, Piece, Predict, Usage
from tidemill.core.tensor import Tensors
from tidemill.deploy.mirror import Mirror, Refusals
from tidemill.wire.messages import Failures, Model, Table
from tidemill.wire.peer import Bounds

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def asked(x: np.ndarray = X, charge: str = "c") -> InferenceRequest:
    return InferenceRequest("half", 1, Predict({"x": x}), "r", charge, asyncio.get_running_loop().time() + 60)


async def eventually_free(service: FakeService) -> None:
    for _ in range(1000):
        if not service.gate.held:
            return
        await asyncio.sleep(0)
    raise AssertionError("the place is not given back")


async def test_charge_is_the_callers_and_is_booked_before_the_answer_goes_out() -> None:
    service = FakeService()
    async with linked(service, service.fleet.models, charging=True) as ends:
        async with ends.fleet.run(asked(), CALLER) as pieces:
            piece = await anext(pieces)
            assert service.ledger.booked == {}
            assert piece.usage == Usage(calls=1, rows=3)
        assert service.ledger.booked == {"c": Usage(calls=1, rows=3)}
    assert service.gate.held == 0


async def test_tokens_and_their_prices_come_through_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    service, used = FakeService(), Usage(1, 3, 1000, 7, 900)

    @asynccontextmanager
    async def run(request: InferenceRequest) -> AsyncIterator[Pieces]:
        async def pieces() -> Pieces:
            yield Piece({"y": X}, used)

        yield pieces()

    monkeypatch.setattr(service.fleet, "run", run)
    monkeypatch.setattr(service.fleet.models[0], "tariff", Tariff(1, 2, 3, 4))
    async with linked(service, service.fleet.models, charging=True) as ends:
        assert ends.fleet.find("half").tariff == Tariff(1, 2, 3, 4)
        async with ends.fleet.run(asked(), CALLER) as found:
            assert (await anext(found)).usage == used
        assert service.ledger.booked == {"c": used}


async def test_answer_that_cannot_be_worded_is_not_charged() -> None:
    service = FakeService()
    async with linked(service, service.fleet.models, charging=True) as ends:

        async def ask() -> None:
            async with ends.fleet.run(asked(), CALLER) as pieces:
                await anext(pieces)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await ask()
        await eventually_free(service)
        assert service.ledger.booked == {}


async def test_front_that_dies_with_an_answer_in_hand_is_not_charged_for_it() -> None:
    service = FakeService()
    async with linked(service, service.fleet.models, charging=True) as ends:

        async def ask() -> None:
            async with ends.fleet.run(asked(), CALLER) as pieces:
                await anext(pieces)
                ends.front.abort()
                await asyncio.sleep(0.01)  # the loss is told on a later turn of the loop

        with pytest.raises(LinkLost):
            await ask()
        await eventually_free(service)
        assert service.ledger.booked == {}
        assert service.failures == {"request.cancelled": 1}


async def test_refusal_of_the_owner_is_the_fronts_answer() -> None:
    service = FakeService()
    service.gate.refusal = Overloaded("full", retry_after_s=3.0)
    async with linked(service, service.fleet.models) as ends:
        with pytest.raises(Overloaded, match="full") as caught:
            async with ends.fleet.run(asked()) as pieces:
                await anext(pieces)
        assert caught.value.retry_after_s == 3.0
        assert service.failures == {}, "the front counts it, which tells the caller"


async def test_what_was_not_foreseen_is_told_as_internal(caplog: pytest.LogCaptureFixture) -> None:
    def broken(inputs: Tensors) -> Tensors:
        raise RuntimeError("a secret")

    service = FakeService(FakeServed("half", 1, HALVE, broken))
    async with linked(service, service.fleet.models) as ends:
        with pytest.raises(Exception, match="its log tells more") as caught:
            async with ends.fleet.run(asked()) as pieces:
                await anext(pieces)
        assert "a secret" not in str(caught.value)
    assert "a secret" in caplog.text


async def test_request_that_is_too_large_is_the_callers_fault_and_an_answer_ours() -> None:
    bounds = Bounds(2**16, 16, 2**20)
    service = FakeService(FakeServed("half", 1, HALVE, lambda given: {"y": np.zeros((100_000, 1), np.float32)}))
    async with linked(service, service.fleet.models, bounds=bounds) as ends:
        with pytest.raises(RequestTooLarge, match="--frame-bytes-max"):
            async with ends.fleet.run(asked(np.zeros((100_000, 1), np.float32))):
                pass
        with pytest.raises(FrameTooLarge, match="--frame-bytes-max"):
            async with ends.fleet.run(asked()) as pieces:
                await anext(pieces)
    assert service.gate.held == 0


async def test_caller_that_leaves_cancels_at_the_owner() -> None:
    service = FakeService()
    service.fleet.held = asyncio.Event()
    async with linked(service, service.fleet.models) as ends:

        async def ask() -> None:
            async with ends.fleet.run(asked()) as pieces:
                await anext(pieces)

        task = asyncio.ensure_future(ask())
        await service.fleet.arrived.wait()
        task.cancel()
        await asyncio.wait_for(service.fleet.cancelled.wait(), 20)
        await asyncio.gather(task, return_exceptions=True)
        await eventually_free(service)


async def test_deadline_travels_as_the_time_that_is_left() -> None:
    service = FakeService()
    async with linked(service, service.fleet.models) as ends:
        async with ends.fleet.run(asked()) as pieces:
            await anext(pieces)
        left = service.fleet.requests[0].deadline - asyncio.get_running_loop().time()
        assert 50 < left <= 60


# -- the mirror --------------------------------------------------------------------------------------------------------


def table(*versions: tuple[int, str, int], labels: dict[str, dict[str, int]] | None = None) -> Table:
    """(version, state, serial) of `half`."""
    model = told([FakeServed("half", 1, HALVE, halve)]).models[0]
    models = [
        Model(serial, "half", version, HALVE, (), "fake", (), 1, state, "", model.running)
        for version, state, serial in versions
    ]
    return Table(tuple(models), labels or {}, ready=True, draining=False, grpc_port=0)


def test_mirror_finds_as_the_owner_would() -> None:
    mirror = Mirror(Refusals())
    with pytest.raises(UnknownModel, match="served are none"):
        mirror.find("half")
    mirror.show(
        table((1, "AVAILABLE", 1), (2, "AVAILABLE", 2), (3, "LOADING", 0), labels={"half": {"old": 1, "new": 9}})
    )
    assert mirror.find("half").version == 2
    assert mirror.find("half", label="old").version == 1
    assert [each.version for each in mirror.versions("half")] == [1, 2, 3]
    with pytest.raises(ModelNotReady, match="version 3 is LOADING"):
        mirror.find("half", 3)
    with pytest.raises(UnknownVersion, match="served are 1, 2, 3"):
        mirror.find("half", 4)
    with pytest.raises(UnknownLabel, match="version 9, which is not served"):
        mirror.find("half", label="new")
    with pytest.raises(UnknownLabel, match="its labels are new, old"):
        mirror.find("half", label="none")


def test_mirror_finds_by_alias_and_says_whose_it_is() -> None:
    mirror = Mirror(Refusals())
    shown = table((1, "AVAILABLE", 1), (2, "AVAILABLE", 2), labels={"half": {"old": 1}})
    mirror.show(msgspec.structs.replace(shown, aliases={"other": "half", "gone": "nobody"}))
    assert (mirror.find("other").name, mirror.find("other", 1).version, mirror.find("other", label="old").version) == (
        "half", 1, 1,
    )  # fmt: skip
    assert [each.version for each in mirror.versions("other")] == [1, 2]
    with pytest.raises(UnknownModel, match="there is no model 'nobody'; served are half"):
        mirror.find("gone")


def test_version_is_given_back_when_the_last_request_has_let_go() -> None:
    released: list[int] = []
    mirror = Mirror(Refusals(), released.append)
    mirror.show(table((1, "AVAILABLE", 7)))
    held = mirror.find("half")
    mirror.show(table((1, "AVAILABLE", 7), (2, "AVAILABLE", 8)))
    assert mirror.find("half", 1) is held
    mirror.show(table((1, "UNLOADING", 0), (2, "AVAILABLE", 8)))
    gc.collect()
    assert released == []
    assert held.version == 1
    del held
    assert released == [7]


def test_refusals_are_told_once() -> None:
    refusals = Refusals()
    mirror = Mirror(refusals)
    mirror.show(table((1, "AVAILABLE", 1)))
    for _ in range(3):
        mirror.find("half").failed("input.shape")
    assert refusals.take() == (Failures("half", 1, "input.shape", 3),)
    assert refusals.take() == ()
