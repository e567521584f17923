from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import crafted
from small_engines import ROWS, WAIT_S_MAX, Raising, SmallEngine, ask, soon
from tidemill.core import registry
from tidemill.core.errors import (
    EngineFailed,
    MissingPart,
    ModelNotReady,
    RefusedModel,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from tidemill.core.package import Batching, ModelPackage, Price
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.deploy import local
from tidemill.deploy.local import FleetPolicy, LocalFleet, Replica, State
from tidemill.deploy.opening import Opened

POLICY = FleetPolicy("auto", 1, 1, 8, 100, 0.0, 7)


@pytest.fixture
async def fleet() -> AsyncIterator[LocalFleet]:
    made = LocalFleet(POLICY)
    yield made
    await asyncio.wait_for(made.close(), WAIT_S_MAX)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[int, Callable[[], Any]]:
    """What builds the engine of each version of the model `m`; a `SmallEngine` where nothing is said."""
    factories: dict[int, Callable[[], Any]] = {}

    def load(package: ModelPackage, threads: int) -> Any:
        assert threads >= 1
        return factories.get(package.version, SmallEngine)()

    loading = registry.load
    monkeypatch.setattr(registry, "load", lambda name: load if name == "engine.small" else loading(name))
    return factories


def small(version: int = 1, **config: Any) -> ModelPackage:
    package = crafted.echo_package("m", version, **config)
    return msgspec.structs.replace(package, config=msgspec.structs.replace(package.config, engine="small"))


async def passes(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not holds():  # noqa: ASYNC110 - what it looks at knows no events
            await asyncio.sleep(0.001)


async def values(fleet: LocalFleet, version: int = 1, *asked: float) -> list[float]:
    async with fleet.run(ask(*(asked or (1.0,)), version=version, deadline=soon())) as pieces:
        return [float(value) async for piece in pieces for value in piece.tensors["y"].ravel()]


async def test_model_that_is_loaded_answers_and_says_what_it_is(fleet: LocalFleet, tmp_path: Path) -> None:
    package = crafted.package(crafted.save(tmp_path, crafted.plus_minus()))
    replica = await fleet.load(package)
    assert fleet.find("m") is fleet.find("m", 1) is replica
    assert (replica.state, replica.reason, replica.platform) == (State.AVAILABLE, "", "onnxruntime_onnx")
    assert (replica.batched, replica.rows_max, replica.tariff.call_nanos, replica.waiting) == (True, 8, 7, 0)
    assert [spec.name for spec in replica.signature.outputs] == ["up", "down"]


@pytest.mark.parametrize("order", [(1, 2, 10), (10, 2, 1), (2, 10, 1)])
async def test_newest_is_the_greatest_number_in_whatever_order_they_came(
    fleet: LocalFleet, engines: Any, order: tuple[int, ...]
) -> None:
    for version in order:
        await fleet.load(small(version))
    assert fleet.find("m").version == 10
    assert [replica.version for replica in fleet.versions("m")] == [1, 2, 10]
    assert [replica.version for replica in fleet.replicas()] == [1, 2, 10]


async def test_newest_that_serves_is_found_though_a_newer_one_failed(fleet: LocalFleet, engines: Any) -> None:
    await fleet.load(small(1))
    fleet.refuse("m", 2, "it is cut short")
    assert fleet.find("m").version == 1
    with pytest.raises(ModelNotReady, match="version 2 is FAILED"):
        fleet.find("m", 2)
    assert [(each.version, each.state) for each in fleet.versions("m")] == [(1, "AVAILABLE"), (2, "FAILED")]


async def test_model_of_which_nothing_serves_is_not_ready_and_its_reason_stays_inside(fleet: LocalFleet) -> None:
    fleet.refuse("m", 1, "why not")
    for version in (None, 1):
        with pytest.raises(ModelNotReady, match="version 1 is FAILED") as caught:
            fleet.find("m", version)
        assert "why not" not in caught.value.message
    with pytest.raises(UnknownVersion, match="served are 1"):
        fleet.find("m", 2)
    with pytest.raises(ModelNotReady):
        await values(fleet)


async def test_unknown_model_tells_those_that_are_served(fleet: LocalFleet, engines: Any) -> None:
    for ask_for in (fleet.find, fleet.versions):
        with pytest.raises(UnknownModel, match="served are none"):
            ask_for("x")
    await fleet.load(small())
    with pytest.raises(UnknownModel, match="served are m"):
        fleet.find("x")
    with pytest.raises(UnknownModel):
        async with fleet.run(ask(1, model="x")):
            pass
    with pytest.raises(UnknownVersion):
        await values(fleet, 9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RefusedModel("it is cut short"),
        lambda: MissingPart("it is cut short: pip install it"),
        lambda: ValueError("it is cut short"),
        lambda: MemoryError("it is cut short"),
        lambda: KeyError("it is cut short"),
    ],
)
async def test_package_that_is_refused_stands_with_its_reason_and_the_others_serve_on(
    fleet: LocalFleet, engines: dict[int, Any], make: Callable[[], Exception]
) -> None:
    def refuse() -> None:
        raise make()

    engines[2] = refuse
    await fleet.load(small(1))
    failed = await fleet.load(small(2))
    assert failed.state is State.FAILED
    assert "it is cut short" in failed.reason
    assert fleet.find("m").version == 1
    assert await values(fleet) == [2.0]


async def test_engine_that_nobody_registered_is_a_reason(fleet: LocalFleet) -> None:
    package = crafted.echo_package("m")
    package = msgspec.structs.replace(package, config=msgspec.structs.replace(package.config, engine="warp"))
    replica = await fleet.load(package)
    assert (replica.state, "warp" in replica.reason) == (State.FAILED, True)


@pytest.mark.parametrize("make", [lambda: RefusedModel("zeros?"), lambda: ValueError("zeros?"), lambda: MemoryError()])
async def test_model_that_refuses_zeros_is_served_all_the_same(
    fleet: LocalFleet, engines: dict[int, Any], make: Callable[[], Exception]
) -> None:
    engine = Raising(make)
    engines[1] = lambda: engine
    assert (await fleet.load(small())).state is State.AVAILABLE
    engine.always = False
    assert await values(fleet) == [2.0]


async def test_shape_too_large_for_a_warm_up_does_not_stop_the_service(
    fleet: LocalFleet, engines: dict[int, Any]
) -> None:
    huge = Signature((TensorSpec("x", "FP32", (10**9, 10**9)),), ROWS.outputs)
    engines[1] = lambda: SmallEngine(huge)
    assert (await fleet.load(small())).state is State.AVAILABLE


async def test_model_is_loading_while_it_loads_and_others_serve(fleet: LocalFleet, engines: dict[int, Any]) -> None:
    go, begun = threading.Event(), threading.Event()

    def slow() -> SmallEngine:
        begun.set()
        assert go.wait(WAIT_S_MAX)
        return SmallEngine()

    engines[2] = slow
    await fleet.load(small(1))
    loading = asyncio.create_task(fleet.load(small(2)))
    assert await asyncio.to_thread(begun.wait, WAIT_S_MAX)
    assert fleet.find("m").version == 1
    with pytest.raises(ModelNotReady, match="version 2 is LOADING"):
        fleet.find("m", 2)
    assert await values(fleet) == [2.0]
    go.set()
    await loading
    assert fleet.find("m").version == 2


async def test_loading_a_version_again_takes_its_place_when_it_is_ready(
    fleet: LocalFleet, engines: dict[int, Any]
) -> None:
    first = SmallEngine()
    engines[1] = lambda: first
    before = await fleet.load(small())
    engines[1] = SmallEngine
    after = await fleet.load(small())
    assert fleet.find("m") is fleet.find("m", 1) is after
    assert fleet.replicas() == [after]
    assert (first.closed, before.state) == (0, State.UNLOADING)
    assert await values(fleet) == [2.0]
    del before
    await passes(lambda: first.closed == 1)


async def test_version_that_is_unloaded_is_not_found_and_answers_those_who_found_it_before(
    fleet: LocalFleet, engines: dict[int, Any]
) -> None:
    first = SmallEngine()
    engines[1] = lambda: first
    await fleet.load(small(1))
    await fleet.load(small(2))
    held = fleet.find("m", 1)
    unloading = asyncio.create_task(fleet.unload("m", 1))
    await asyncio.sleep(0)
    assert held.state is State.UNLOADING
    with pytest.raises(UnknownVersion, match="served are 2"):
        fleet.find("m", 1)
    assert await values(fleet, 1, 4.0) == [8.0]
    assert (first.closed, fleet.tariff("m", 1).call_nanos) == (0, 7)
    assert [(each.version, each.state) for each in fleet.versions("m")] == [(1, "UNLOADING"), (2, "AVAILABLE")]
    del held
    await asyncio.wait_for(unloading, WAIT_S_MAX)
    assert first.closed == 1
    assert [each.version for each in fleet.versions("m")] == [2]
    await fleet.unload("m", 1)


async def test_unloading_waits_no_longer_than_the_drain_and_the_engine_goes_when_its_batch_ends(
    engines: dict[int, Any],
) -> None:
    fleet = LocalFleet(msgspec.structs.replace(POLICY, drain_s_max=0.05))
    engine = SmallEngine()
    engines[1] = lambda: engine
    await fleet.load(small())
    engine.gate.clear()
    engine.entered.clear()
    running = asyncio.create_task(values(fleet, 1, 5.0))
    assert await asyncio.to_thread(engine.entered.wait, WAIT_S_MAX)
    waiting = asyncio.create_task(values(fleet, 1, 6.0))
    await asyncio.sleep(0)
    await asyncio.wait_for(fleet.unload("m", 1), WAIT_S_MAX)
    with pytest.raises(ModelNotReady, match="unloaded"):
        await asyncio.wait_for(waiting, WAIT_S_MAX)
    assert engine.closed == 0
    engine.gate.set()
    assert await running == [10.0]
    await passes(lambda: engine.closed == 1)
    await fleet.close()


async def test_load_that_takes_too_long_is_refused_and_its_engine_is_closed_when_it_comes(
    engines: dict[int, Any],
) -> None:
    fleet = LocalFleet(msgspec.structs.replace(POLICY, load_s_max=0.05))
    go, late = threading.Event(), SmallEngine()

    def slow() -> SmallEngine:
        assert go.wait(WAIT_S_MAX)
        return late

    engines[1] = slow
    replica = await fleet.load(small())
    assert (replica.state, "0.05 s" in replica.reason) == (State.FAILED, True)
    go.set()
    await passes(lambda: late.closed == 1)
    await fleet.close()


async def test_labels_lead_to_versions_and_a_label_of_none_that_serves_is_told(
    fleet: LocalFleet, engines: dict[int, Any]
) -> None:
    await fleet.load(small(1))
    await fleet.load(small(2))
    fleet.label("m", {"stable": 1, "gone": 7})
    assert fleet.find("m", label="stable").version == 1
    with pytest.raises(UnknownLabel, match="its labels are gone, stable"):
        fleet.find("m", label="x")
    with pytest.raises(UnknownLabel, match="version 7, which is not served; served are 1, 2"):
        fleet.find("m", label="gone")


async def test_loading_a_version_again_in_vain_leaves_the_one_that_serves(
    fleet: LocalFleet, engines: dict[int, Any]
) -> None:
    standing = await fleet.load(small())
    engines[1] = lambda: (_ for _ in ()).throw(RefusedModel("worse"))
    assert (await fleet.load(small())).state is State.FAILED
    fleet.refuse("m", 1, "worse still")
    assert fleet.find("m") is fleet.find("m", 1) is standing
    assert await values(fleet) == [2.0]


async def test_failed_version_can_be_loaded_again(fleet: LocalFleet, engines: Any) -> None:
    fleet.refuse("m", 1, "not yet")
    assert (await fleet.load(small())).state is State.AVAILABLE
    assert await values(fleet) == [2.0]


async def test_close_finishes_what_waits_and_gives_every_engine_back(engines: dict[int, Any]) -> None:
    fleet = LocalFleet(POLICY)
    made = {version: SmallEngine() for version in (1, 2)}
    for version, engine in made.items():
        engines[version] = lambda engine=engine: engine
        await fleet.load(small(version))
    fleet.refuse("m", 3, "no")
    made[1].gate.clear()
    made[1].entered.clear()
    running = asyncio.create_task(values(fleet, 1, 5.0))
    assert await asyncio.to_thread(made[1].entered.wait, WAIT_S_MAX)
    closing = asyncio.create_task(fleet.close())
    await asyncio.sleep(0)
    for version in (None, 1, 2):
        with pytest.raises(ModelNotReady):
            fleet.find("m", version)
    made[1].gate.set()
    await asyncio.wait_for(closing, WAIT_S_MAX)
    assert await running == [10.0]
    assert [engine.closed for engine in made.values()] == [1, 1]


async def test_request_that_leaves_early_is_taken_back(fleet: LocalFleet, engines: dict[int, Any]) -> None:
    engine = SmallEngine()
    engines[1] = lambda: engine
    await fleet.load(small())
    engine.calls.clear()
    async with fleet.run(ask(7, deadline=soon())):
        pass
    assert await values(fleet, 1, 8.0) == [16.0]
    assert engine.calls == [[8.0]]


async def test_engine_that_breaks_ends_the_request_and_not_the_model(
    fleet: LocalFleet, engines: dict[int, Any]
) -> None:
    engine = Raising(ValueError, always=False)
    engines[1] = lambda: engine
    await fleet.load(small())
    with pytest.raises(EngineFailed):
        await values(fleet, 1, -2.0)
    assert await values(fleet) == [2.0]


async def test_config_of_the_model_beats_the_service_s() -> None:
    package = small(1, batching=Batching(batched=False, max_batch=3), price=Price(call_nanos=0))
    replica = Replica(package, POLICY)
    replica.adopt(ROWS)
    assert (replica.batched, replica.rows_max, replica.tariff.call_nanos) == (False, 3, 0)
    assert Replica(crafted.echo_package(), POLICY).tariff.call_nanos == 7


@pytest.mark.parametrize(("own", "given"), [(None, "bf16"), ("auto", "auto")])
def test_precision_of_the_model_beats_the_service_s(monkeypatch: pytest.MonkeyPatch, own: Any, given: str) -> None:
    seen = []

    def opening(name: str, package: ModelPackage, *more: Any) -> Opened:
        seen.append(package.config)
        return Opened(SmallEngine(), 0.0, rows_apart=True)

    monkeypatch.setattr(local, "open_engine", opening)
    policy = msgspec.structs.replace(POLICY, openvino_precision="bf16")
    local._open("echo", small(1, openvino_precision=own), policy)
    assert [each.openvino_precision for each in seen] == [given]


@pytest.mark.parametrize(
    ("batched", "rows_apart", "wish", "told"),
    [
        (True, True, None, ""),
        (True, True, False, "its tidemill.toml says batched = false"),
        (True, False, None, "the rows of a batch are not answered as they are alone"),
        (False, False, None, "no batch dimension"),
        (False, False, True, ""),
    ],
)
def test_why_requests_run_singly_is_known(batched: bool, rows_apart: bool, wish: bool | None, told: str) -> None:
    replica = Replica(small(1, batching=Batching(batched=wish)), POLICY)
    spec = TensorSpec("x", "FP32", (-1 if batched else 2, 3))
    replica.adopt(Signature((spec,), (spec,)), rows_apart)
    assert (replica.singly, replica.batched) == (told, not told)


@pytest.mark.parametrize(("own", "given"), [(None, ("cuda",)), (("cpu",), ("cpu",)), ((), ())])
def test_providers_of_the_model_beat_the_service_s(own: Any, given: Any) -> None:
    policy = msgspec.structs.replace(POLICY, providers=("cuda",))
    assert policy.filled(small(1, providers=own)).config.providers == given


async def test_rows_are_billed_only_of_a_model_that_has_them(fleet: LocalFleet, engines: Any) -> None:
    await fleet.load(small(1))
    await fleet.load(small(2, batching=Batching(batched=False)))
    for version, rows in ((1, 3), (2, 1)):
        async with fleet.run(ask(1, 2, 3, version=version, deadline=soon())) as pieces:
            assert [(each.usage.calls, each.usage.rows) async for each in pieces if each.usage] == [(1, rows)]
