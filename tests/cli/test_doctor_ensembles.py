"""What doctor finds wrong with ensembles: real models on disk, and what would be told only when somebody asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_models import named_kinds, save, times
from tidemill.cli.looked_into import problems_of
from tidemill.core.settings import Settings

DECLARED = """
engine = "ensemble"
inputs = [{name = "x", datatype = "FP32", shape = [-1, 1]}]
outputs = [{name = "y", datatype = "FP32", shape = [-1, 1]}]
"""
STEP = 'before = [{step = "normalise", input = "x", output = "x"}]'


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`twice` in two versions, of which the newest serves: y [-1, 1] = 2 x [-1, 1]; `named`: a [-1, 2], b [-1, 1] ->
    scores, outputs, classes."""
    folder = tmp_path / "models"
    save(folder, "twice", times(2), 1)
    save(folder, "twice", times(2), 2)
    save(folder, "named", named_kinds())
    return folder


def ensemble(models: Path, toml: str, name: str = "both", head: str = DECLARED) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "tidemill.toml").write_text(head + toml)


def found(models: Path, load: bool = False) -> list[str]:
    ports = {"http_port": 0, "grpc_port": 0, "console_port": 0}
    settings = Settings(
        models=models, data_dir=models.parent / "data", no_auth=True, connections_max=100, engine="onnx", **ports
    )
    return [line.partition(": ")[2] for line in problems_of(settings, load)]


def test_nothing_is_found_where_tensors_fit(models: Path) -> None:
    ensemble(models, '[[stage]]\nmodel = "twice"\noutputs = {x = "y"}\n[[stage]]\nmodel = "twice"\nversion = 2\n')
    ensemble(models, '[[stage]]\nmodel = "both"\n', "more")
    each = '[[stage]]\nmodel = "twice"\nfor_each = "x"\ninputs = {x = "element"}\njoin = {y = "y"}\n'
    ensemble(models, each, "each")
    assert found(models) == found(models, load=True) == []


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ('model = "gone"', "stage 1 asks 'gone', which is not served here; serve it too (served are"),
        ('model = "twice"\nversion = 1', "stage 1 asks 'twice' in version 1, and served are 2; widen its"),
        ('model = "twice"\nlabel = "new"', "with the label 'new'; its labels are none: give it that one"),
        ('model = "both"', "its stages lead back to it: both -> both; let one of them ask another model"),
        ('model = "twice"\ninputs = {x = "w"}', "stage 1 (twice) takes 'w' for its input 'x', which nobody gives"),
        ('model = "twice"\ninputs = {q = "x"}', "stage 1 (twice) has no input 'q'; it takes x FP32 [-1, 1]"),
        ('model = "twice"\noutputs = {y = "z"}', "stage 1 (twice) has no output 'z'; it gives y FP32 [-1, 1]"),
        ('model = "twice"\noutputs = {z = "y"}', "no stage gives the output 'y'; there are 'x', 'z'"),
        ('model = "twice"\nfor_each = "w"\njoin = {y = "y"}', "no stage has given 'w' for its for_each"),
        ('model = "twice"\nfor_each = "x"\njoin = {y = "z"}', "stage 1 (twice) gives no 'z' to collect or join"),
        (
            'model = "named"\ninputs = {a = "x", b = "x"}\noutputs = {y = "outputs"}',
            "stage 1 (named) takes 'x' for its input 'a': it is FP32 [-1, 1], and FP32 [-1, 2] is wanted",
        ),
        (
            STEP + '\nmodel = "named"\noutputs = {y = "classes"}',
            "its stages give the output 'y' as BYTES [-1, 2], and it declares FP32 [-1, 1]",
        ),
    ],
)
def test_what_cannot_pass_is_told_with_what_to_do(models: Path, stages: str, says: str) -> None:
    ensemble(models, f"[[stage]]\n{stages}\n")
    (line,) = found(models)
    assert says in line
    assert found(models, load=True) == [line]  # once, though looked at twice


def test_circle_over_several_is_told_of_each(models: Path) -> None:
    ensemble(models, '[[stage]]\nmodel = "two"\n', "one")
    ensemble(models, '[[stage]]\nmodel = "one"\n', "two")
    assert found(models) == [
        "its stages lead back to it: one -> two -> one; let one of them ask another model",
        "its stages lead back to it: two -> one -> two; let one of them ask another model",
    ]


def test_stage_whose_only_version_is_refused_is_told(models: Path) -> None:
    bad = models / "bad" / "1"
    bad.mkdir(parents=True)
    (bad / "model.onnx").write_bytes(b"no model")
    ensemble(models, '[[stage]]\nmodel = "bad"\n')
    assert "stage 1 asks 'bad', whose version 1 is refused; see there" in found(models)


def test_triton_s_ensemble_is_held_against_its_models(models: Path) -> None:
    config = """
    max_batch_size: 8
    input [ { name: "raw" data_type: TYPE_INT32 dims: [ 1 ] } ]
    output [ { name: "cooked" data_type: TYPE_FP32 dims: [ 3 ] } ]
    ensemble_scheduling { step [ {
      model_name: "twice" input_map { key: "x" value: "raw" } output_map { key: "y" value: "cooked" }
    } ] }
    """
    (models / "pots" / "1").mkdir(parents=True)
    (models / "pots" / "config.pbtxt").write_text(config)
    one, two = found(models)
    assert "takes 'raw' for its input 'x': it is INT32 [-1, 1], and FP32 [-1, 1] is wanted" in one
    assert "its stages give the output 'cooked' as FP32 [-1, 1], and it declares FP32 [-1, 3]" in two
