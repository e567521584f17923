"""Triton's ensembles: steps in any order become stages in that of their tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelConfig, Stage
from tidemill.core.tensor import TensorSpec
from tidemill.repository import triton_config

INPUT = 'input [ { name: "IN" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]'
OUTPUT = 'output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]'


def step(model: str, inputs: dict[str, str], outputs: dict[str, str], more: str = "model_version: -1") -> str:
    maps = [
        f'{kind} {{ key: "{key}" value: "{value}" }}'
        for kind, pairs in (("input_map", inputs), ("output_map", outputs))
        for key, value in pairs.items()
    ]
    return f'{{ model_name: "{model}" {more} {" ".join(maps)} }}'


FIRST = step("a", {"x": "IN"}, {"y": "between"})
LAST = step("b", {"x": "between", "raw": "IN"}, {"y": "OUT"}, "model_version: 3")


def read(tmp_path: Path, *steps: str, head: str = 'platform: "ensemble" max_batch_size: 4') -> triton_config.Said:
    place = tmp_path / "config.pbtxt"
    place.write_text(f"{head} {INPUT} {OUTPUT} ensemble_scheduling {{ step [ {', '.join(steps)} ] }}")
    return triton_config.read(place, "m")


@pytest.mark.parametrize("steps", [(FIRST, LAST), (LAST, FIRST)], ids=["in order", "turned round"])
def test_steps_become_stages_in_the_order_of_their_tensors(tmp_path: Path, steps: tuple[str, str]) -> None:
    config = read(tmp_path, *steps).config
    assert config.engine == "ensemble"
    assert config.stage == (
        Stage("a", inputs={"x": "IN"}, outputs={"between": "y"}),
        Stage("b", 3, inputs={"x": "between", "raw": "IN"}, outputs={"OUT": "y"}),
    )
    assert config.inputs == (TensorSpec("IN", "FP32", (-1, 3, -1)),)
    assert config.outputs == (TensorSpec("OUT", "BYTES", (-1, 1)),)


def test_without_a_batch_the_shapes_are_as_they_are_told(tmp_path: Path) -> None:
    config = read(tmp_path, FIRST, LAST, head="").config
    assert (config.inputs[0].shape, config.outputs[0].shape) == ((3, -1), (1,))


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ((), "a step, an input and an output at least"),
        ((step("", {"x": "IN"}, {"y": "OUT"}),), "step 1 has no model_name"),
        ((step("a", {}, {"y": "OUT"}),), r"step 1 \('a'\) has no input_map"),
        ((step("a", {"x": "IN"}, {}),), "has no output_map"),
        ((step("a", {"x": "IN"}, {"y": "OUT"}, "model_version: -2"),), "model_version is -2"),
        ((step("a", {"x": "IN"}, {"y": "OUT"}, 'model_namespace: "n"'),), "model_namespace 'n'"),
        ((step("a", {"x": "in"}, {"y": "OUT"}),), "takes 'in', which is no input and which no step gives"),
        ((FIRST,), "no step gives the output 'OUT'"),
        ((FIRST, FIRST, LAST), r"step 2 \('a'\) gives 'between', which step 1 \('a'\) gives too"),
        ((step("a", {"x": "IN"}, {"y": "IN"}),), "gives 'IN', which the request gives too"),
        ((step("a", {"x": "IN"}, {"y": "OUT", "z": "OUT"}),), "two outputs of the model are one tensor"),
        (
            (step("a", {"x": "OUT"}, {"y": "between"}), step("b", {"x": "between"}, {"y": "OUT"})),
            r"step 1 \('a'\) takes 'OUT' from step 2 \('b'\), and neither can be first: .* in a circle",
        ),
        ((step("a", {"x": "OUT"}, {"y": "OUT"}),), "in a circle"),
        ((step("a", {"x": "IN"}, {"y": "OUT"}, "priority: 3"),), 'in ensemble_scheduling: .* named "priority"'),
    ],
    ids=str,
)
def test_steps_that_cannot_be_followed_are_refused_with_their_place(
    tmp_path: Path, steps: tuple[str, ...], match: str
) -> None:
    with pytest.raises(RefusedModel, match=match) as caught:
        read(tmp_path, *steps)
    assert "config.pbtxt" in caught.value.message


def test_an_ensemble_has_no_engine_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RefusedModel, match="is for the platform 'ensemble', and this one is 'onnxruntime'"):
        read(tmp_path, FIRST, LAST, head='backend: "onnxruntime"')


def test_the_bare_platform_leaves_the_stages_to_tidemill_toml(tmp_path: Path) -> None:
    place = tmp_path / "config.pbtxt"
    place.write_text('platform: "ensemble"')
    assert triton_config.read(place, "m").config == ModelConfig(engine="ensemble")
