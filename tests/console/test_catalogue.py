"""One list of what is on disk and what runs."""

from __future__ import annotations

import msgspec

from tidemill.console.catalogue import NOT_LOADED, Known, matching, merged
from tidemill.console.kinds import Kind
from tidemill.console.snapshot import Indexed, IndexedVersion, Model, Overview, Service
from tidemill.core.tensor import TensorSpec

SPEC = (TensorSpec("x", "FP32", (1,)),)


def overview(*models: Model) -> Overview:
    return Overview(Service("0", 1.0, 1.0, True), models)


def indexed(name: str, *states: str, **more: object) -> Indexed:
    versions = tuple(IndexedVersion(number, state) for number, state in enumerate(states, start=1))
    return msgspec.structs.replace(Indexed(name, versions=versions), **more)


def only(found: list[Known]) -> Known:
    (model,) = found
    return model


def test_the_overview_has_the_last_word_on_what_is_loaded() -> None:
    model = only(merged((indexed("m", "AVAILABLE", "AVAILABLE"),), overview(Model("m", 2, "FAILED", "cut short")), ()))
    assert [(each.number, each.state) for each in model.versions] == [(2, "FAILED"), (1, NOT_LOADED)]
    assert (model.state, model.reason, model.kind) == ("FAILED", "cut short", None)


def test_the_newest_that_serves_speaks_for_the_model() -> None:
    running = (
        Model("m", 1, "AVAILABLE", accepts=("image/png",), inputs=SPEC),
        Model("m", 2, "LOADING"),
    )
    model = only(merged((), overview(*running), ()))
    assert (model.shown.number, model.state, model.busy, model.kind) == (1, "AVAILABLE", True, Kind.PICTURE)
    assert [each.number for each in model.serving] == [1]


def test_labels_stand_at_their_versions_and_models_without_versions_are_left_out() -> None:
    index = (indexed("m", "", "", labels={"stable": 1, "next": 2}, unloaded=True), Indexed("empty"))
    model = only(merged(index, overview(), ()))
    assert {each.number: each.labels for each in model.versions} == {2: ("next",), 1: ("stable",)}
    assert model.unloaded
    assert model.state == NOT_LOADED


def test_a_filter_takes_every_word_from_name_kind_state_engine_and_labels() -> None:
    running = (
        Model("ocr-det", 1, "AVAILABLE", engine="onnx", accepts=("image/png",), inputs=SPEC),
        Model("minilm", 1, "AVAILABLE", engine="onnx", accepts=("text/plain",), inputs=SPEC),
        Model("broken", 1, "FAILED"),
    )
    found = merged((indexed("minilm", "", labels={"stable": 1}),), overview(*running), ())
    names = {
        wanted: [each.name for each in matching(found, wanted)]
        for wanted in ("", "OCR", "onnx text", "stable", "failed", "x y")
    }
    assert names == {
        "": ["broken", "minilm", "ocr-det"],
        "OCR": ["ocr-det"],
        "onnx text": ["minilm"],
        "stable": ["minilm"],
        "failed": ["broken"],
        "x y": [],
    }
