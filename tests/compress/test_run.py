"""A compression from recipe to package: refused before work, refused after it, published, resumed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import small_nets
from tidemill.assemble.compression import compression
from tidemill.compress import publish, recipe, report, rollback, run
from tidemill.compress.method import Method, Outcome
from tidemill.compress.run import Done, Finished
from tidemill.core import registry
from tidemill.core.errors import BadData, DiskFull, InvalidRecipe, QualityLost, RefusedModel, UnknownModel, WorkUnderWay
from tidemill.core.settings import Settings
from tidemill.repository import layout, lineage

METHODS: dict[str, Method] = {"rounds": small_nets.ROUNDS, "wipes": small_nets.WIPES}


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> dict[str, Method]:
    known = {**registry.known(), **{f"solver.{name}": "x:y" for name in (*METHODS, "several")}}
    mine = dict(METHODS)
    real = registry.load
    monkeypatch.setattr(registry, "known", lambda: known)
    monkeypatch.setattr(registry, "load", lambda name: mine.get(name.removeprefix("solver.")) or real(name))
    return mine


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Place:
    """A repository with `net`, and compressions of it."""

    def __init__(self, folder: Path, threads: Executor) -> None:
        self.folder, self.models, self._threads = folder, folder / "models", threads
        small_nets.save_net(self.models)
        self.stages: list[str] = []

    def compress(
        self, method: str = "rounds", name: str = "small", options: tuple[str, ...] = (), match: tuple[str, ...] = (),
        force: bool = False, measured: bool = False, **others: Any,
    ) -> list[Finished]:  # fmt: skip
        given = {"model": "net", "data": str(self.folder / "fit.npz"), **others}
        return self.carry_out(recipe.of_method(method, options, match, **given), name, force, measured).finished

    def carry_out(self, asked: recipe.Recipe, name: str = "small", force: bool = False, measured: bool = False) -> Done:
        ready = compression(
            Settings(models=self.models), asked, name, self.folder / "work", "tidemill compress …",
            data=lambda name: None, workers=1, measured=measured, force=force, executor=self._threads,
        )  # fmt: skip
        return ready(lambda stage, done, total, left_s: self.stages.append(stage))


@pytest.fixture
def place(tmp_path: Path, threads: Executor) -> Place:
    return Place(tmp_path, threads)


def test_a_model_is_published_that_serve_would_run_with_its_report(place: Place) -> None:
    (done,) = place.compress(keep=0.9)
    assert (done.name, done.version) == ("small", 1)
    package = layout.package("small", 1, done.folder)
    assert package.source == "net@1 by rounds"
    with np.load(place.folder / "fit.npz") as rows:
        answers = [
            onnxruntime.InferenceSession(path).run(None, {"x": rows["x"]})[0].argmax(axis=1)
            for path in (place.models / "net/1/model.onnx", package.path)
        ]
    assert (answers[0] == answers[1]).mean() > 0.9
    told = report.decode((done.folder / "report/report.json").read_bytes())
    assert told == done.report
    assert (told.name, told.version, told.metric.name) == ("small", 1, "accuracy")
    assert [(layer.name, layer.method) for layer in told.layers] == [("first", "rounds"), ("second", "rounds")]
    assert all(layer.error_held is not None and layer.error_held < 0.01 for layer in told.layers)
    assert (told.data.fit_rows, told.data.held_rows) == (140, 60)
    assert told.after.sha256 == publish.digest(package.path)
    assert "kind" in told.examples[0].before
    assert (done.folder / "labels.txt").is_file()
    manifest = lineage.read(done.folder)
    assert manifest is not None
    assert manifest.lineage.of.sha256 == publish.digest(place.models / "net/1/model.onnx")
    assert manifest.lineage.recipe["steps"][0]["options"] == {"bits": 8}
    assert manifest.lineage.loss.keep == 0.9
    assert not list((place.folder / "work").iterdir())


def test_what_loses_too_much_is_refused_and_its_report_kept(place: Place) -> None:
    with pytest.raises(QualityLost, match=r"nothing was published.*accuracy, asked were 0\.99") as caught:
        place.compress("wipes", keep=0.99, rollback=False)
    assert not (place.models / "small").exists()
    path = Path(caught.value.message.partition("report: ")[2].rstrip(")"))
    assert "refused" in path.read_text()


def test_layers_are_rolled_back_to_keep_what_was_asked_for(place: Place) -> None:
    (done,) = place.compress("rounds", options=("bits=2",), keep=0.83)
    assert done.report.metric.kept >= 0.83
    assert any("got its own weights back" in note for note in done.report.notes)
    assert len(done.report.layers) == 1


def test_a_missed_target_is_refused(place: Place) -> None:
    asked = recipe.parse("model: net\ntargets: {size: 0.01}\nsteps: [{method: rounds}]")
    with pytest.raises(QualityLost, match=r"size is .*at most 0\.01"):
        place.carry_out(recipe.changed(asked, data=str(place.folder / "fit.npz")))


def test_only_the_layers_that_match_are_changed(place: Place) -> None:
    (done,) = place.compress(match=("sec*",))
    assert [layer.name for layer in done.report.layers] == ["second"]


def test_steps_follow_one_another(place: Place) -> None:
    asked = recipe.parse(
        "model: net\nsteps: [{method: rounds, match: [first]}, {method: rounds, match: [second], options: {bits: 4}}]"
    )
    (done,) = place.carry_out(recipe.changed(asked, data=str(place.folder / "fit.npz"))).finished
    assert [(layer.name, round(layer.bits)) for layer in done.report.layers] == [("first", 10), ("second", 5)]
    assert done.report.methods == ("rounds", "rounds")


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"match": ("third",)}, InvalidRecipe, "first, second"),
        ({"options": ("bitz=4",)}, InvalidRecipe, "did you mean 'bits'"),
        ({"options": ("bits=9",)}, InvalidRecipe, "at most 8"),
        ({"model": "other"}, UnknownModel, "net"),
        ({"data": "nowhere.npz"}, BadData, "nowhere.npz"),
        ({"data": "no_such_module_at_all:rows"}, BadData, "no_such_module_at_all"),
        ({"held": "nowhere.npz"}, BadData, "nowhere.npz"),
        ({"metric": "acuracy"}, InvalidRecipe, "did you mean 'accuracy'"),
        ({"name": "net"}, RefusedModel, "--force"),
        ({"name": "a/b"}, RefusedModel, "a/b"),
    ],
    ids=str,
)
def test_what_can_be_known_to_be_wrong_is_said_before_any_work(
    place: Place, changes: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind) as caught:
        place.compress(**changes)
    assert told in str(caught.value)
    assert place.stages in ([], ["reading the model"])


def test_a_model_that_is_no_onnx_is_refused(place: Place) -> None:
    folder = place.models / "ir" / "1"
    folder.mkdir(parents=True)
    (folder / "model.xml").write_text('<?xml version="1.0"?><net name="x"></net>')
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(RefusedModel, match="ONNX models are compressed"):
        place.compress(model="ir")


def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = place.compress(name="whole")
    real = small_nets.Rounds.solve

    def dies(self: small_nets.Rounds, task: Any) -> Any:
        if task.name == "second":
            raise KeyboardInterrupt
        return real(self, task)

    monkeypatch.setattr(small_nets.Rounds, "solve", dies)
    with pytest.raises(KeyboardInterrupt):
        place.compress()
    assert layout.names(place.models) == ["net", "whole"]
    solved: list[str] = []

    def counts(self: small_nets.Rounds, task: Any) -> Any:
        solved.append(task.name)
        return real(self, task)

    monkeypatch.setattr(small_nets.Rounds, "solve", counts)
    (resumed,) = place.compress()
    assert solved == ["second"]
    assert resumed.report.after.sha256 == whole.report.after.sha256


def test_several_models_are_published_under_names_of_their_own(place: Place, methods: dict[str, Method]) -> None:
    def both(bench: Any, options: Mapping[str, Any]) -> list[Outcome]:
        return [
            Outcome(found.graph, found.layers, name)
            for name, found in (
                ("S1", bench.layerwise(small_nets.Rounds(), options={"bits": 8})),
                ("S2", bench.layerwise(small_nets.Wipes())),
            )
        ]

    methods["several"] = Method("several", "Two.", run=both)
    asked = recipe.of_method("several", model="net", data=str(place.folder / "fit.npz"), keep=0.9)
    done = place.carry_out(asked)
    assert [each.name for each in done.finished] == ["small-S1"]
    assert {peer.name for peer in done.finished[0].report.peers} == {"S1", "S2"}
    (refused,) = done.refused
    assert (refused.outcome, "asked were 0.9" in refused.why) == ("S2", True)
    assert (refused.folder / "report.html").is_file()
    assert {path.name for path in refused.folder.parents[1].iterdir()} == {"lock", "refused"}
    assert {each.name for each in place.compress("several", name="all")} == {"all-S1", "all-S2"}


def test_the_manifest_is_plain_json(place: Place) -> None:
    (done,) = place.compress()
    told = json.loads((done.folder / "manifest.json").read_text())
    assert told["source"] == "net@1 by rounds"
    assert told["lineage"]["data"]["sha256"]
    assert run.machine()["processor"]


def test_two_runs_of_the_same_work_do_not_meet(place: Place, methods: dict[str, Method]) -> None:
    def during(bench: Any, options: Mapping[str, Any]) -> list[Outcome]:
        with pytest.raises(WorkUnderWay, match=rf"process {os.getpid()}, in {place.folder}"):
            place.compress("several", name="other")
        return [bench.layerwise(small_nets.Rounds(), options={"bits": 8})]

    methods["several"] = Method("several", "One.", run=during)
    (done,) = place.compress("several")
    assert (done.folder / "model.onnx").is_file()
    assert layout.names(place.models) == ["net", "small"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_wherever_it_is_met(place: Place, methods: dict[str, Method], number: int) -> None:
    def full(bench: Any, options: Mapping[str, Any]) -> list[Outcome]:
        raise OSError(number, "no room", str(place.folder / "work" / "x"))

    methods["several"] = Method("several", "None.", run=full)
    with pytest.raises(DiskFull, match=r"no room left to write .*work/x: nothing was published"):
        place.compress("several")


@pytest.mark.parametrize("method", ["int8", "laplace"])
def test_methods_of_the_whole_model_leave_layers_as_they_were_to_keep_the_metric(place: Place, method: str) -> None:
    options = ("sparsity=0.9",) if method == "laplace" else ("range=minmax", "compensate=false", "reduce_range=true")
    given = {"options": options, "metric": "cosine"}
    (all_of_it,) = place.compress(method, **given)
    keep = 0.8 * all_of_it.report.metric.kept + 0.2
    with pytest.raises(QualityLost):
        place.compress(method, keep=keep, rollback=False, **given)
    (done,) = place.compress(method, keep=keep, **given)
    assert done.report.metric.kept >= keep
    (layer,) = done.report.layers
    left = {"first", "second"} - {layer.name}
    assert f"{left.pop()} was left as it is, to keep the metric" in done.report.notes
    assert rollback.CHOSEN in done.report.notes


def test_a_layer_that_two_steps_changed_tells_of_both(place: Place) -> None:
    asked = recipe.parse("model: net\nsteps: [{method: laplace}, {method: int8}]")
    (done,) = place.carry_out(recipe.changed(asked, data=str(place.folder / "fit.npz"))).finished
    for layer in done.report.layers:
        assert layer.method == "laplace + int8"
        assert any("of the weights are zero" in note for note in layer.notes)


def test_names_of_several_models_are_free_before_any_work(place: Place) -> None:
    small_nets.save_net(place.models, "u-60")
    with pytest.raises(RefusedModel, match="u-60 holds a model"):
        place.compress("unify", name="u")
    assert place.stages == []


def test_too_few_rows_are_said_of_the_whole_run(place: Place) -> None:
    (done,) = place.compress("int8", rows=10)
    assert "2 of 2 layers learned from too few rows; first: 10 rows give H rank 9 of 24" in done.report.notes[0]


def test_who_rolls_nothing_back_says_so(place: Place) -> None:
    with pytest.raises(QualityLost, match="zero-one gives no layer its own weights back"):
        place.compress("zero-one", options=("size=0.05",), keep=1.0, metric="cosine")
