"""`Controller` over a real fleet and a real folder; echo models, which load in no time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from small_engines import WAIT_S_MAX
from small_models import echo
from tidemill.core.errors import InvalidSetting, RefusedModel, UnknownLabel, UnknownModel
from tidemill.core.package import Batching, ModelConfig, ModelEntry, VersionPolicy, Versions
from tidemill.core.settings import Settings
from tidemill.deploy.controller import Controller, ControlPolicy
from tidemill.deploy.local import FleetPolicy, LocalFleet

POLICY = FleetPolicy("auto", 1, 1, 8, 100, 0.0, 7)
TENSOR = 'datatype = "FP32", shape = [-1, 1]'
ECHO = f'engine = "echo"\ninputs = [{{name = "x", {TENSOR}}}]\noutputs = [{{name = "y", {TENSOR}}}]\n'
ALL = VersionPolicy(all_versions=True)


class Place:
    """A repository, its fleet and its controllers, whose clock goes on by one each time it is looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = LocalFleet(POLICY)
        self.made: list[Controller] = []
        self._now = 0.0

    async def serve(self, *names: str, entries: Sequence[ModelEntry] = (), **policy: Any) -> Controller:
        wanted = [*(ModelEntry(name, self.folder / name) for name in names), *entries]
        policy = {"settle_s": 0.0, **policy}
        controller = Controller(self.fleet, self.folder, wanted, ControlPolicy(**policy), self._clock)
        self.made.append(controller)
        await controller.start()
        return controller

    def _clock(self) -> float:
        self._now += 1.0
        return self._now

    def served(self, name: str = "m") -> list[int]:
        return [each.version for each in self.fleet.standing(name) if each.state == "AVAILABLE"]

    def states(self, name: str = "m") -> dict[int, str]:
        return {each.version: str(each.state) for each in self.fleet.standing(name)}

    def broken(self, version: int, name: str = "m") -> Path:
        place = self.folder / name / str(version)
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(b"garbage")
        return place

    def toml(self, text: str, name: str = "m") -> None:
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "tidemill.toml").write_text(text)


async def looked(controller: Controller, rounds: int = 2) -> None:
    """Two looks: what is new at the first is settled at the second."""
    for _ in range(rounds):
        await controller.look_round()
        await asyncio.wait_for(controller.idle(), WAIT_S_MAX)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    for controller in made.made:
        await controller.close()
    await asyncio.wait_for(made.fleet.close(), WAIT_S_MAX)


def remove(version: Path) -> None:
    for file in version.iterdir():
        file.unlink()
    version.rmdir()


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy(), [10]),
        (VersionPolicy(latest=2), [3, 10]),
        (ALL, [1, 2, 3, 10]),
        (VersionPolicy(specific=(1, 3, 77)), [1, 3]),
    ],
    ids=str,
)
async def test_policy_says_which_versions_are_served(place: Place, policy: VersionPolicy, served: list[int]) -> None:
    for version in (1, 2, 3, 10):
        echo(place.folder, "m", "FP32", version=version)
    await place.serve("m", versions=policy)
    assert place.served() == served


async def test_new_version_takes_over_once_it_is_settled_and_a_removed_one_goes(place: Place) -> None:
    echo(place.folder, "m", "FP32", version=1)
    controller = await place.serve("m")
    second = echo(place.folder, "m", "FP32", version=2)
    await looked(controller, 1)
    assert place.served() == [1]
    await looked(controller, 1)
    assert place.served() == [2]
    remove(second)
    await looked(controller)
    assert place.served() == [1]


async def test_version_that_is_still_being_written_is_not_loaded(place: Place) -> None:
    echo(place.folder, "m", "FP32", version=1)
    controller = await place.serve("m", settle_s=3.0)
    growing = echo(place.folder, "m", "FP32", version=2)
    for size in range(5):
        (growing / "weights").write_bytes(b"x" * size)
        await looked(controller, 1)
        assert place.states() == {1: "AVAILABLE"}
    await looked(controller, 4)
    assert place.served() == [2]


async def test_version_with_a_manifest_is_loaded_when_its_files_are_there_and_not_before(place: Place) -> None:
    echo(place.folder, "m", "FP32", version=1)
    controller = await place.serve("m", settle_s=1.0)
    second = echo(place.folder, "m", "FP32", version=2)
    (second / "manifest.json").write_text('{"files": {"weights": {"size_bytes": 3}}}')
    await looked(controller, 5)
    assert place.states() == {1: "AVAILABLE"}
    (second / "weights").write_bytes(b"xyz")
    await looked(controller, 1)
    assert place.served() == [2]


async def test_broken_new_version_stands_failed_with_its_reason_while_the_old_one_serves_on(place: Place) -> None:
    echo(place.folder, "m", "FP32", version=1)
    controller = await place.serve("m")
    bad = place.broken(2)
    await looked(controller, 3)
    assert place.states() == {1: "AVAILABLE", 2: "FAILED"}
    (told,) = [each for each in controller.index() if each.version == 2]
    assert "not an ONNX model" in told.reason
    remove(bad)
    echo(place.folder, "m", "FP32", version=2)
    await looked(controller)
    assert place.states() == {2: "AVAILABLE"}


async def test_changed_configuration_and_policy_are_followed(place: Place) -> None:
    for version in (1, 2):
        place.toml(ECHO)
        (place.folder / "m" / str(version)).mkdir()
    controller = await place.serve("m")
    assert place.served() == [2]
    place.toml(ECHO + '[batching]\nmax_batch = 3\n[versions]\npolicy = "all"\nlabels = {old = 1}')
    await looked(controller)
    assert place.served() == [1, 2]
    assert [each.rows_max for each in place.fleet.standing("m")] == [3, 3]
    assert place.fleet.find("m", label="old").version == 1
    place.toml(ECHO + '[versions]\npolicy = "most"')
    await looked(controller)
    assert place.served() == [1, 2]
    with pytest.raises(RefusedModel, match="expected latest"):
        await controller.load("m")


async def test_models_come_and_go_with_the_whole_repository(place: Place) -> None:
    echo(place.folder, "m", "FP32")
    controller = await place.serve("m", whole=True)
    echo(place.folder, "new", "FP32")
    await looked(controller)
    assert (place.served(), place.served("new")) == ([1], [1])
    (place.folder / "m").rename(place.folder / ".m")
    await looked(controller)
    assert (place.served(), place.served("new")) == ([], [1])
    assert [each.name for each in controller.index()] == ["new"]


async def test_repository_that_vanishes_takes_no_model_with_it(place: Place) -> None:
    echo(place.folder / "disk", "m", "FP32")
    place.folder = place.folder / "disk"
    controller = await place.serve("m", whole=True)
    place.folder.rename(place.folder.with_name("gone"))
    await looked(controller)
    assert place.served() == [1]


async def test_model_that_was_unloaded_stays_so_until_it_is_loaded(place: Place) -> None:
    for version in (1, 2):
        echo(place.folder, "m", "FP32", version=version)
    controller = await place.serve("m", whole=True, versions=ALL)
    await controller.unload("m")
    await looked(controller)
    assert place.states() == {}
    assert [(each.version, each.state) for each in controller.index()] == [(1, ""), (2, "")]
    with pytest.raises(UnknownModel, match="was unloaded by hand; POST /v2/repository/models/m/load"):
        place.fleet.find("m")
    await controller.unload("m")
    await controller.load("m")
    assert place.served() == [1, 2]
    assert not place.fleet.parked


async def test_explicit_load_has_the_last_word_on_the_configuration_until_the_next(place: Place) -> None:
    for version in (1, 2, 3):
        echo(place.folder, "m", "FP32", version=version)
    controller = await place.serve("m")
    given = ModelConfig(batching=Batching(max_batch=2), versions=Versions(policy="latest:2"))
    await controller.load("m", given)
    assert [(each.version, each.rows_max) for each in place.fleet.standing("m")] == [(2, 2), (3, 2)]
    await looked(controller)
    assert place.served() == [2, 3]
    await controller.load("m")
    assert [(each.version, each.rows_max) for each in place.fleet.standing("m")] == [(3, 8)]


async def test_load_finds_what_lies_in_the_repository_and_nothing_else(place: Place) -> None:
    echo(place.folder, "m", "FP32")
    controller = await place.serve()
    await controller.load("m")
    assert place.served() == [1]
    (place.folder / "empty").mkdir()
    for name in ("gone", "..", "../m", "", "empty", "m/1"):
        with pytest.raises(UnknownModel):
            await controller.load(name)
        with pytest.raises(UnknownModel):
            await controller.unload(name)


async def test_load_that_is_refused_says_why_and_is_tried_again(place: Place) -> None:
    place.broken(1)
    controller = await place.serve()
    for _ in range(2):
        with pytest.raises(RefusedModel, match=r"version 1: .*not an ONNX model"):
            await controller.load("m")
    assert place.states() == {1: "FAILED"}


async def test_reload_serves_exactly_its_entries(place: Place) -> None:
    for name in ("a", "b", "c"):
        for version in (1, 2):
            echo(place.folder, name, "FP32", version=version)
    controller = await place.serve("a", "b", whole=True)
    entries = [
        ModelEntry("b", place.folder / "b", ALL, {"stable": 1}),
        ModelEntry("other", place.folder / "c", VersionPolicy(specific=(1,))),
    ]
    await controller.reload(entries)
    await looked(controller)
    assert [place.served(name) for name in ("a", "b", "c", "other")] == [[], [1, 2], [], [1]]
    assert place.fleet.find("b", label="stable").version == 1
    await controller.reload([])
    await looked(controller)
    assert place.fleet.replicas() == []


async def test_reload_serves_what_is_named_well_and_tells_what_is_not(place: Place) -> None:
    echo(place.folder, "a", "FP32")
    place.broken(1, "b")
    controller = await place.serve()
    good, bad = ModelEntry("a", place.folder / "a"), ModelEntry("b", place.folder / "b")
    with pytest.raises(RefusedModel, match="'b' version 1"):
        await controller.reload([bad, good])
    with pytest.raises(UnknownModel, match="nowhere"):
        await controller.reload([ModelEntry("c", place.folder / "nowhere"), good])
    assert place.served("a") == [1]
    with pytest.raises(InvalidSetting, match="'a': named twice"):
        await controller.reload([good, good])


async def test_label_moves_to_a_version_that_serves_and_to_no_other(place: Place) -> None:
    for version in (1, 2):
        echo(place.folder, "m", "FP32", version=version)
    entry = ModelEntry("m", place.folder / "m", ALL, {"stable": 1})
    controller = await place.serve(entries=[entry])
    await controller.label("m", "stable", 2)
    await controller.load("m")
    assert place.fleet.find("m", label="stable").version == 2
    with pytest.raises(InvalidSetting, match="version 3, which is not served; served are 1, 2"):
        await controller.label("m", "stable", 3)
    with pytest.raises(UnknownModel):
        await controller.label("x", "stable", 1)
    with pytest.raises(InvalidSetting, match="'stable' stands for version 3"):
        await controller.reload([ModelEntry("m", entry.base_path, ALL, {"stable": 3})])
    assert place.fleet.find("m", label="stable").version == 2
    await controller.reload([entry])
    assert place.fleet.find("m", label="stable").version == 1


@pytest.mark.parametrize("label", ["", "a/b", "a:b", "a\0b", "a\nb", "a" * 129])
async def test_label_that_no_address_could_name_is_refused(place: Place, label: str) -> None:
    echo(place.folder, "m", "FP32")
    controller = await place.serve("m")
    await controller.label("m", "a" * 128, 1)
    with pytest.raises(InvalidSetting, match="cannot stand in an address"):
        await controller.label("m", label, 1)
    assert list(place.fleet.labels("m")) == ["a" * 128]


async def test_label_of_a_version_that_comes_later_is_an_error_until_then(place: Place) -> None:
    echo(place.folder, "m", "FP32", version=1)
    controller = await place.serve(entries=[ModelEntry("m", place.folder / "m", ALL, {"next": 2})])
    with pytest.raises(UnknownLabel, match="version 2, which is not served"):
        place.fleet.find("m", label="next")
    echo(place.folder, "m", "FP32", version=2)
    await looked(controller)
    assert place.fleet.find("m", label="next").version == 2


async def test_model_that_comes_under_the_name_of_an_alias_is_refused_and_the_alias_stands(place: Place) -> None:
    policy = msgspec.structs.replace(POLICY, settings=Settings(aliases="late=m, lost=nobody"))
    place.fleet = LocalFleet(policy)
    echo(place.folder, "m", "FP32")
    controller = await place.serve("m", whole=True)
    echo(place.folder, "late", "FP32")
    await looked(controller)
    assert place.states("late") == {1: "FAILED"}
    assert "'late' is an alias of 'm'" in place.fleet.standing("late")[0].reason
    assert place.fleet.find("late").name == "m"
    with pytest.raises(RefusedModel, match="one of the two wants another name"):
        await controller.load("late")
    with pytest.raises(UnknownModel, match="no model 'nobody'"):
        place.fleet.find("lost")


async def test_labels_are_free_where_that_is_asked_for(place: Place) -> None:
    echo(place.folder, "m", "FP32")
    controller = await place.serve("m", free_labels=True)
    await controller.label("m", "next", 9)
    await controller.reload([ModelEntry("m", place.folder / "m", ALL, {"next": 9})])
    with pytest.raises(UnknownLabel, match="version 9"):
        place.fleet.find("m", label="next")


async def test_operations_on_one_model_run_one_after_the_other(place: Place) -> None:
    for version in (1, 2):
        echo(place.folder, "m", "FP32", version=version)
    controller = await place.serve("m", versions=ALL)
    some: list[Callable[[], Any]] = [
        lambda: controller.load("m"),
        lambda: controller.unload("m"),
        lambda: controller.load("m", ModelConfig(versions=Versions(policy="latest"))),
        lambda: controller.reload([ModelEntry("m", place.folder / "m", ALL)]),
    ]
    await asyncio.wait_for(asyncio.gather(*[some[number % 4]() for number in range(24)]), WAIT_S_MAX)
    assert place.served() == [1, 2]


async def test_operation_is_finished_though_its_caller_went_away(place: Place) -> None:
    echo(place.folder, "m", "FP32")
    controller = await place.serve()
    asking = asyncio.create_task(controller.load("m"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(controller.idle(), WAIT_S_MAX)
    assert place.served() == [1]


async def test_the_policy_in_force_is_the_models_own_or_the_services_or_that_of_an_explicit_load(place: Place) -> None:
    for name in ("m", "n"):
        echo(place.folder, name, "FP32", (-1, 1))
    place.toml('[versions]\npolicy = "latest:2"\n', "n")
    controller = await place.serve("m", "n", versions=ALL)
    assert controller.policy("m") == ALL
    assert controller.policy("n") == VersionPolicy(latest=2)
    await controller.load("m", ModelConfig(versions=Versions(policy="specific:1")))
    assert controller.policy("m") == VersionPolicy(specific=(1,))
    await controller.load("m")
    assert controller.policy("m") == ALL
    with pytest.raises(UnknownModel):
        controller.policy("nobody")


async def test_a_configuration_that_was_refused_is_refused_again_while_the_former_serves(place: Place) -> None:
    echo(place.folder, "m", "FP32", (-1, 1))
    controller = await place.serve("m")
    for _ in range(2):
        with pytest.raises(RefusedModel):
            await controller.load("m", ModelConfig(engine="nothing"))
        assert place.served() == [1]
    await controller.load("m")
    assert place.served() == [1]
