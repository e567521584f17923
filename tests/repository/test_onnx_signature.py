from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper

import small_models
from tidemill.core.errors import RefusedModel
from tidemill.engine import onnx
from tidemill.repository import layout, onnx_files

MODELS = ["fixed", "two_inputs", "whole_numbers", "text", "kinds", "named_kinds", "summed", "poison"]


@pytest.mark.parametrize("name", MODELS)
def test_file_says_of_its_tensors_what_the_engine_says(tmp_path: Path, name: str) -> None:
    make: Callable[[], ModelProto] = getattr(small_models, name)
    version = small_models.save(tmp_path, "m", make())
    engine = onnx.load(layout.package("m", 1, version), 1)
    assert onnx_files.signature(version / "model.onnx") == engine.signature
    engine.close()


def test_initial_value_that_is_listed_as_an_input_is_none(tmp_path: Path) -> None:
    model = small_models.times(2)
    model.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, []))
    version = small_models.save(tmp_path, "m", model)
    found = onnx_files.signature(version / "model.onnx")
    assert found is not None
    assert [spec.name for spec in found.inputs] == ["x"]


def test_tensors_that_are_none_are_not_guessed(tmp_path: Path) -> None:
    model = small_models.times(2)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(model.graph.output[0].type))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert onnx_files.signature(tmp_path / "m.onnx") is None
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(RefusedModel, match="not an ONNX model"):
        onnx_files.signature(tmp_path / "m.onnx")
