"""Models in a chain: loaded in any order, batched each on its own lane, told apart when one fails."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

import crafted
from small_engines import WAIT_S_MAX
from tidemill.core import registry
from tidemill.core.errors import (
    DeadlineExceeded,
    EngineFailed,
    MissingInput,
    ModelNotReady,
    RefusedByEngine,
    UnknownOutput,
)
from tidemill.core.package import ModelConfig, ModelPackage, Price, Stage, WarmUp
from tidemill.core.request import RAW, InferenceRequest, Piece, Predict, Usage
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.deploy.local import FleetPolicy, LocalFleet, State
from tidemill.deploy.steps import StepPolicy
from tidemill.engine.echo import EchoEngine

POLICY = FleetPolicy("auto", 1, 1, 8, 100, 0.0, 7)
X = np.arange(4, dtype=np.float32).reshape(2, 2)
PAIR = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


class Adding(EchoEngine):
    """y = x + 1; waits for `gate` where there is one, and refuses negative numbers."""

    gate: Any = None
    batches: ClassVar[list[int]] = []

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if self.gate is not None:
            assert self.gate.wait(WAIT_S_MAX)
        if (inputs["x"] < 0).any():
            raise RefusedByEngine("a negative number")
        self.batches.append(len(inputs["x"]))
        return {"y": inputs["x"] + 1}


@pytest.fixture
async def fleet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalFleet]:
    loading = registry.load
    monkeypatch.setattr(
        registry, "load", lambda name: (lambda *_: Adding(PAIR)) if name == "engine.adding" else loading(name)
    )
    monkeypatch.setattr(Adding, "gate", None)
    monkeypatch.setattr(Adding, "batches", [])
    made = LocalFleet(POLICY)
    yield made
    await asyncio.wait_for(made.close(), WAIT_S_MAX)


def adding(name: str, version: int = 1) -> ModelPackage:
    package = crafted.echo_package(name, version)
    return msgspec.structs.replace(package, config=ModelConfig(engine="adding"))


def stage(model: str, **more: Any) -> Stage:
    return Stage(model, **{"inputs": {"x": "x"}, "outputs": {"x": "y"}, **more})


def chain(name: str, *stages: Stage, **more: Any) -> ModelPackage:
    config = ModelConfig(
        **{
            "engine": "ensemble",
            "inputs": (TensorSpec("x", "FP32", None),),
            "outputs": (TensorSpec("x", "FP32", None),),
            "stage": stages,
            **more,
        }
    )
    return ModelPackage(name, 1, Path("nowhere"), "ensemble", 0, config)


def asked(name: str, x: Array = X, seconds: float = 100.0) -> InferenceRequest:
    return InferenceRequest(name, 1, Predict({"x": x}), "r", "c", time.monotonic() + seconds)


async def answer(fleet: LocalFleet, request: InferenceRequest) -> Piece:
    async with fleet.run(request) as pieces:
        (piece,) = [piece async for piece in pieces]
    return piece


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_it_serves_as_soon_as_its_stages_do_whatever_came_first(
    fleet: LocalFleet, order: tuple[int, ...]
) -> None:
    both = stage("ab", outputs={"x": "x"})
    packages = [adding("a"), adding("b"), chain("ab", stage("a"), stage("b")), chain("abab", both, both)]
    for package in packages:
        fleet.announce(package)
    for number in order:
        await fleet.load(packages[number])
    assert {each.name: each.state for each in fleet.replicas()} == dict.fromkeys(("a", "b", "ab", "abab"), "AVAILABLE")
    piece = await answer(fleet, asked("abab"))
    assert np.array_equal(piece.tensors["x"], X + 4)
    assert piece.usage == Usage(calls=1, rows=1)
    assert (fleet.find("abab").platform, fleet.find("abab").stats.requests) == ("ensemble", 1)


async def test_a_stage_that_nobody_serves_refuses_it(fleet: LocalFleet) -> None:
    replica = await fleet.load(chain("ab", stage("a"), stage("b")))
    assert replica.state is State.FAILED
    assert "stage 1 asks 'a', which is not served here" in replica.reason


async def test_a_stage_that_was_refused_refuses_it(fleet: LocalFleet) -> None:
    for package in (adding("a"), chain("aa", stage("a"))):
        fleet.announce(package)
    waiting = await fleet.load(chain("aa", stage("a")))
    assert waiting.state is State.LOADING
    with pytest.raises(ModelNotReady, match="LOADING"):
        fleet.find("aa")
    fleet.refuse("a", 1, "cut short")
    assert (waiting.state, waiting.reason) == (State.FAILED, waiting.reason)
    assert "its stage 'a' does not serve" in waiting.reason


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
async def test_a_circle_is_refused(fleet: LocalFleet, order: tuple[str, ...]) -> None:
    packages = {name: chain(name, stage(after)) for name, after in (("a", "b"), ("b", "c"), ("c", "a"))}
    for package in packages.values():
        fleet.announce(package)
    for name in order:
        await fleet.load(packages[name])
    assert {each.state for each in fleet.replicas()} == {State.FAILED}
    assert any("its stages lead back to it" in each.reason for each in fleet.replicas())


async def test_one_that_asks_itself_is_refused(fleet: LocalFleet) -> None:
    replica = await fleet.load(chain("a", stage("a")))
    assert "its stages lead back to it: a -> a" in replica.reason


@pytest.mark.parametrize(
    ("package", "says"),
    [
        (chain("ab"), r"1 to 64 \[\[stage\]\], this one 0"),
        (chain("ab", stage("a", before=({"step": "resise"},))), "stage 1 .a. before 1: there is no step 'resise'"),
        (chain("ab", stage("a", collect={"x": "x"})), "there is none"),
        (chain("ab", stage("a"), outputs=()), "must be declared"),
        (chain("ab", stage("a"), warm_up=(WarmUp({}),)), "give it to those that the stages ask"),
        (chain("ab", stage("a", version=7)), "has no version 7"),
        (chain("ab", stage("a", label="new")), "no label 'new'"),
    ],
)
async def test_what_can_never_run_is_refused_when_it_is_loaded(
    fleet: LocalFleet, package: ModelPackage, says: str
) -> None:
    await fleet.load(adding("a"))
    replica = await fleet.load(package)
    assert replica.state is State.FAILED
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(replica.reason)


async def test_the_newest_version_of_a_stage_is_asked(fleet: LocalFleet) -> None:
    await fleet.load(adding("a", 1))
    await fleet.load(chain("now", stage("a")))
    await fleet.load(chain("then", stage("a", version=1)))
    await fleet.load(adding("a", 2))
    for name in ("now", "then"):
        await answer(fleet, asked(name))
    assert [fleet.find("a", version).stats.requests for version in (1, 2)] == [1, 1]


async def test_an_error_names_its_stage(fleet: LocalFleet) -> None:
    for package in (adding("a"), adding("b"), chain("ab", stage("a"), stage("b"))):
        await fleet.load(package)
    with pytest.raises(RefusedByEngine, match=r"stage 1 \(a\): a negative number"):
        await answer(fleet, asked("ab", X - 5))
    await fleet.load(
        chain("b-lower", stage("a"), stage("b", before=({"step": "scale", "input": "x", "offset": -9.0},)))
    )
    with pytest.raises(RefusedByEngine, match=r"stage 2 \(b\): a negative number"):
        await answer(fleet, asked("b-lower"))


async def test_what_it_answered_and_what_failed_is_counted_with_its_time(fleet: LocalFleet) -> None:
    await fleet.load(adding("plus"))
    await fleet.load(chain("whole", stage("plus"), stage("plus")))
    before_ms = time.time() * 1000
    await answer(fleet, asked("whole"))
    with pytest.raises(RefusedByEngine):
        await answer(fleet, asked("whole", -X - 1))
    counts, of_stage = fleet.find("whole").counts(), fleet.find("plus").counts()
    assert (counts.success.count, counts.runs, of_stage.success.count) == (1, 1, 2)
    assert counts.success.ns >= of_stage.success.ns > 0
    assert counts.failed.ns > 0
    assert counts.infer.count == counts.queued.count == 0  # its stages tell them
    assert before_ms - 1 <= counts.last_ms <= time.time() * 1000


async def test_it_steps_back_while_a_stage_is_missing_and_with_it_those_that_ask_it(fleet: LocalFleet) -> None:
    for package in (adding("a"), chain("aa", stage("a")), chain("more", stage("aa", outputs={"x": "x"}))):
        await fleet.load(package)
    held = fleet.find("aa")
    await fleet.unload("a", 1)
    with pytest.raises(ModelNotReady, match="'aa' version 1 is FAILED: its stage 'a' does not serve: there is no"):
        fleet.find("aa")
    with pytest.raises(ModelNotReady, match="'more' version 1 is FAILED: its stage 'aa' does not serve"):
        fleet.find("more")
    with pytest.raises(ModelNotReady, match=r"stage 1 \(a\): there is no model 'a'"):  # who found it before
        await answer(fleet, asked("aa"))
    await fleet.load(adding("a"))
    assert fleet.find("aa") is held
    assert (held.reason, fleet.find("more").state) == ("", "AVAILABLE")
    assert (await answer(fleet, asked("more"))).tensors["x"].shape == (2, 2)


async def test_it_waits_while_the_only_other_version_of_a_stage_is_being_loaded(fleet: LocalFleet) -> None:
    for package in (adding("a"), chain("aa", stage("a"))):
        await fleet.load(package)
    fleet.announce(adding("a", 2))
    await fleet.unload("a", 1)
    with pytest.raises(ModelNotReady, match="is LOADING: a stage of it is being loaded"):
        fleet.find("aa")
    await fleet.load(adding("a", 2))
    assert fleet.find("aa").state is State.AVAILABLE


async def test_it_steps_back_while_a_stage_s_label_is_gone(fleet: LocalFleet) -> None:
    await fleet.load(adding("a"))
    fleet.label("a", {"new": 1})
    ensemble = await fleet.load(chain("aa", stage("a", label="new")))
    fleet.label("a", {})
    assert (ensemble.state, ensemble.reason) == (
        "FAILED",
        "its stage 'a' does not serve: model 'a' has no label 'new'; it has none at all",
    )
    fleet.label("a", {"new": 1})
    assert fleet.find("aa") is ensemble


async def test_each_element_is_asked_and_they_are_batched_together(fleet: LocalFleet) -> None:
    each = stage("a", for_each="x", inputs={"x": "element"}, join={"x": "x"})
    for package in (adding("a"), chain("each", each)):
        await fleet.load(package)
    Adding.batches.clear()
    piece = await answer(fleet, asked("each", np.arange(20, dtype=np.float32).reshape(10, 2)))
    assert np.array_equal(piece.tensors["x"], np.arange(20).reshape(10, 2) + 1)
    assert sum(Adding.batches) == 10
    assert len(Adding.batches) < 10
    assert (await answer(fleet, asked("each", np.zeros((0, 2), np.float32)))).tensors["x"].shape == (0,)


async def test_more_elements_than_allowed_are_refused() -> None:
    fleet = LocalFleet(msgspec.structs.replace(POLICY, steps=StepPolicy(elements_max=3)))
    each = stage("a", for_each="x", inputs={"x": "element"}, outputs={"x": "y"}, join={"x": "x"})
    await fleet.load(msgspec.structs.replace(crafted.echo_package("a", shape=(-1, 2))))
    await fleet.load(chain("each", each))
    with pytest.raises(Exception, match="4 elements, the most allowed is 3"):
        await answer(fleet, asked("each", np.zeros((4, 2), np.float32)))
    await fleet.close()


async def test_the_deadline_of_the_whole_holds_for_its_stages(
    fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (adding("a"), chain("aa", stage("a"))):
        await fleet.load(package)
    gate = threading.Event()
    monkeypatch.setattr(Adding, "gate", gate)
    with pytest.raises(DeadlineExceeded, match="stage 1"):
        await answer(fleet, asked("aa", seconds=0.05))
    gate.set()


async def test_leaving_takes_back_what_waits_in_a_stage(fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    each = stage("a", for_each="x", inputs={"x": "element"}, join={"x": "x"})
    for package in (adding("a"), chain("each", each)):
        await fleet.load(package)
    gate = threading.Event()
    monkeypatch.setattr(Adding, "gate", gate)
    running = asyncio.create_task(answer(fleet, asked("each", np.zeros((40, 2), np.float32))))
    async with asyncio.timeout(WAIT_S_MAX):
        while fleet.find("a").waiting < 8:  # noqa: ASYNC110 - a lane knows no events
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.set()
    Adding.batches.clear()
    await answer(fleet, asked("each", np.zeros((1, 2), np.float32)))
    assert sum(Adding.batches) <= POLICY.rows_max + 1  # the batch that had begun, and this one


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        ({"outputs": (TensorSpec("z", "FP32", None),)}, EngineFailed, "give no tensor 'z'"),
        ({"outputs": (TensorSpec("x", "FP32", (7,)),)}, EngineFailed, "and it declares x FP32"),
        ({"stage": (stage("a", inputs={"x": "w"}),)}, MissingInput, r"stage 1 .a.: there is no 'w'; there are x"),
        ({"stage": (stage("a", outputs={"x": "z"}),)}, UnknownOutput, "stage 1 .a.: there is no output 'z'"),
        ({"stage": (stage("a", for_each="w"),)}, MissingInput, "no stage has given 'w'"),
    ],
)
async def test_what_does_not_fit_together_is_told(
    fleet: LocalFleet, more: dict[str, Any], kind: type[Exception], says: str
) -> None:
    await fleet.load(adding("a"))
    await fleet.load(chain("aa", *more.pop("stage", (stage("a"),)), **more))
    with pytest.raises(kind, match=says):
        await answer(fleet, asked("aa"))


async def test_a_price_of_its_own_is_the_price_of_a_call(fleet: LocalFleet) -> None:
    await fleet.load(adding("a"))
    await fleet.load(chain("aa", stage("a"), stage("a"), price=Price(call_nanos=3)))
    assert fleet.tariff("aa", 1).call_nanos == 3


async def test_a_text_goes_through_steps_and_stages(fleet: LocalFleet, tmp_path: Path) -> None:
    package = chain(
        "aa",
        stage("a"),
        pre=({"step": "csv", "columns": ["x"]}, {"step": "window", "input": "x", "output": "x", "size": 2}),
        post=({"step": "show", "values": ["x"]},),
    )
    for each in (adding("a"), package):
        await fleet.load(each)
    sent = InferenceRequest(
        "aa", 1, Predict({RAW: np.array([b"x\n1\n2\n3\n"], object)}, (), "text/csv"), "r", "c", time.monotonic() + 100
    )
    assert fleet.find("aa").accepts == ("text/csv",)
    piece = await answer(fleet, sent)
    assert piece.tensors[RAW][0] == b'{"predictions":[[2.0,3.0],[4.0,1.0]]}'
