"""A recipe is refused before any work, with the place, the value and what is expected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.compress import recipe as recipes
from tidemill.compress.method import Method, Option
from tidemill.compress.recipe import PlannedStep, Recipe, Step
from tidemill.core import registry
from tidemill.core.errors import InvalidRecipe

WHOLE = """
model: minilm
data: lee.txt
metric: cosine
keep: 0.99
targets: {size: 0.3, time: 0.5}
seed: 7
reading: {rows: 1000, tokens: 64}
shapes: [[1, 16], [8, 128]]
steps:
  - method: fake
    options: {bits: 4, form: classic}
    match: ["*/MatMul", "op:Conv"]
    skip: ["/pooler/*"]
  - method: fake
"""

FAKE = Method(
    "fake",
    "Does nothing.",
    {
        "bits": Option(int, 8, "bits of a weight", 1, 8),
        "form": Option(str, "modern", "which form", choices=("modern", "classic")),
        "smooth": Option(float, 0.5, "strength", 0, 1),
    },
    run=lambda bench, options: [],
)


@pytest.fixture(autouse=True)
def fake_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN, "solver.fake", f"{__name__}:FAKE")
    known = {**registry.known(), "solver.fake": "x:y"}
    monkeypatch.setattr(registry, "known", lambda: known)
    real = registry.load
    monkeypatch.setattr(registry, "load", lambda name: FAKE if name == "solver.fake" else real(name))


def refused(text: str) -> str:
    with pytest.raises(InvalidRecipe) as caught:
        recipes.check(recipes.parse(text, "r.yaml"))
    return caught.value.message


def test_a_whole_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(WHOLE)
    recipe = recipes.read(tmp_path / "r.yaml")
    assert (recipe.model, recipe.keep, recipe.targets.size, recipe.reading.rows) == ("minilm", 0.99, 0.3, 1000)
    assert recipe.shapes == ((1, 16), (8, 128))
    first, second = recipes.check(recipe)
    assert first.options == {"bits": 4, "form": "classic", "smooth": 0.5}
    assert (first.match, first.skip) == (("*/MatMul", "op:Conv"), ("/pooler/*",))
    assert (second.options["bits"], second.match, second.place) == (8, ("*",), "steps[1]")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["r.yaml", "null"]),
        ("steps: []", ["steps", "[]", "length >= 1"]),
        ("steps: 5", ["steps is 5", "array"]),
        ("steps: [{method: 3}]", ["steps[0].method is 3", "str"]),
        ("steps: [{method: fake, optons: {}}]", ["steps[0]", "'optons'", "'options'"]),
        ("stepz: 1", ["'stepz'", "'steps'"]),
        ("targets: {sise: 1}\nsteps: [{method: fake}]", ["targets", "'sise'", "'size'"]),
        ("reading: {row: 1}\nsteps: [{method: fake}]", ["reading", "'row'", "'rows'"]),
        ("keep: 2\nsteps: [{method: fake}]", ["keep is 2", "<= 1.0"]),
        ("keep: .nan\nsteps: [{method: fake}]", ["keep is nan"]),
        ("keep: no\nsteps: [{method: fake}]", ["keep is False"]),
        ("seed: -1\nsteps: [{method: fake}]", ["seed is -1"]),
        ("shapes: [[1, 0]]\nsteps: [{method: fake}]", ["shapes[0][1] is 0"]),
        ("steps: [{method: fake, match: []}]", ["steps[0].match", "length >= 1"]),
        ("model: a\nmodel: b", ["line 2", "'model'", "second time"]),
        ("model: &a x\ndata: *a", ["line 2", "alias"]),
        ("!!python/object:os.system x", ["no YAML"]),
        ("{", ["no YAML"]),
        ("1: 2", ["line 1", "1 is no word"]),
        ("model: \x00", ["no YAML"]),
        ("steps: [{method: fake}]", ["model is missing"]),
        ("model: m\nsteps: [{method: fake}]", ["data is missing", "--data"]),
        ("model: m\ndata: d\nmetric: cosin\nsteps: [{method: fake}]", ["metric is 'cosin'", "did you mean 'cosine'"]),
        ("model: m\ndata: d\nsteps: [{method: fkae}]", ["steps[0].method is 'fkae'", "did you mean 'fake'"]),
        ("model: m\ndata: d\nsteps: [{method: fake, options: {bit: 4}}]", ["steps[0].options", "'bit'", "'bits'"]),
        ("model: m\ndata: d\nsteps: [{method: fake}, {method: fake, options: {bits: 9}}]", ["steps[1]", "at most 8"]),
        ("model: m\ndata: d\nsteps: [{method: fake, options: {bits: many}}]", ["'many'", "whole number"]),
        ("model: m\ndata: d\nsteps: [{method: fake, options: {form: old}}]", ["'old'", "modern, classic"]),
        ("model: m\ndata: d\nsteps: [{method: fake, options: {smooth: .nan}}]", ["nan", "at least 0"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_place_value_and_expectation(text: str, told: list[str]) -> None:
    said = refused(text)
    assert [word for word in told if word not in said] == [], said


def test_a_recipe_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff")
    (tmp_path / "large.yaml").write_bytes(b"#" * (recipes.RECIPE_BYTES_MAX + 1))
    for name in ("none.yaml", "latin.yaml", "large.yaml", "."):
        with pytest.raises(InvalidRecipe, match=r"recipe"):
            recipes.read(tmp_path / name)


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_is_refused(text: str) -> None:
    try:
        assert isinstance(recipes.parse(text), Recipe)
    except InvalidRecipe as error:
        assert error.message  # noqa: PT017


def test_a_method_with_options_is_a_recipe_of_one_step() -> None:
    recipe = recipes.of_method("fake", ["bits=4", "form=classic"], ["a*"], model="m", data="d", keep=0.9, seed=None)
    assert recipe.steps == (Step("fake", {"bits": "4", "form": "classic"}, ("a*",)),)
    (step,) = recipes.check(recipe)
    assert step.options["bits"] == 4
    assert (recipe.keep, recipe.seed) == (0.9, 0)


@pytest.mark.parametrize(
    ("words", "told"), [(["bits"], "NAME=VALUE"), (["=4"], "NAME=VALUE"), (["a=1", "a=2"], "twice")]
)
def test_an_option_that_is_none_is_told(words: list[str], told: str) -> None:
    with pytest.raises(InvalidRecipe, match=told):
        recipes.of_method("fake", words)


def test_a_flag_beats_the_recipe_and_is_checked_alike() -> None:
    recipe = recipes.parse(WHOLE)
    assert recipes.changed(recipe, keep=0.5, data=None).keep == 0.5
    assert recipes.changed(recipe, keep=0.5, data=None).data == "lee.txt"
    assert (recipes.changed(recipe, rows=5).reading.rows, recipes.changed(recipe, rows=5).reading.tokens) == (5, 64)
    with pytest.raises(InvalidRecipe, match=r"reading\.rows is 0"):
        recipes.changed(recipe, rows=0)
    with pytest.raises(InvalidRecipe, match=r"keep is 1\.5"):
        recipes.changed(recipe, keep=1.5)


LAYERS = [
    SimpleNamespace(name=name, op=op) for name, op in (("/a/MatMul", "MatMul"), ("/a/Conv", "Conv"), ("x[0]", "Gemm"))
]


def planned(match: tuple[str, ...], skip: tuple[str, ...] = ()) -> PlannedStep:
    return PlannedStep(FAKE, {}, match, skip, "steps[0]")


@pytest.mark.parametrize(
    ("match", "skip", "found"),
    [
        (("*",), (), [0, 1, 2]),
        (("/a/*",), (), [0, 1]),
        (("op:Conv",), (), [1]),
        (("x[0]",), (), [2]),
        (("*",), ("op:MatMul", "op:G*"), [1]),
        (("*",), ("/a/*",), [2]),
        (("x*", "/a/C*"), (), [1, 2]),
    ],
)
def test_patterns_choose_layers(match: tuple[str, ...], skip: tuple[str, ...], found: list[int]) -> None:
    assert recipes.chosen(planned(match, skip), LAYERS) == [LAYERS[index] for index in found]


@pytest.mark.parametrize(
    ("match", "layers", "told"),
    [
        (("/b/*",), LAYERS, "/a/MatMul"),
        (("/a/MatMull",), LAYERS, "did you mean '/a/MatMul'"),
        (("*",), [], "no layer to compress"),
    ],
)
def test_a_recipe_that_names_no_layer_is_refused(match: tuple[str, ...], layers: list[Any], told: str) -> None:
    with pytest.raises(InvalidRecipe, match=r"steps\[0\]") as caught:
        recipes.chosen(planned(match), layers)
    assert told in caught.value.message
