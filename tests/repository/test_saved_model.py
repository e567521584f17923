from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import crafted
from tidemill.core.errors import RefusedModel
from tidemill.core.tensor import DTYPES, Signature, TensorSpec
from tidemill.repository.saved_model import signature

ONE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),))
OTHER = Signature((TensorSpec("a", "INT64", (1,)),), (TensorSpec("b", "BYTES", None),))


def read(folder: Path, saved: Any) -> Signature:
    (folder / "saved_model.pb").write_bytes(saved if isinstance(saved, bytes) else saved.SerializeToString())
    return signature(folder)


def test_serving_default_is_meant_among_several(tmp_path: Path) -> None:
    found = read(tmp_path, crafted.saved_model({"other": OTHER, "serving_default": ONE, "a": ONE}))
    assert found == Signature(ONE.inputs, ONE.outputs, others=("a", "other"))


def test_only_signature_is_meant_whatever_its_name(tmp_path: Path) -> None:
    nothing = Signature((), ())
    found = read(tmp_path, crafted.saved_model({"other": OTHER, "__saved_model_init_op": ONE, "empty": nothing}))
    assert found == Signature(OTHER.inputs, OTHER.outputs, "other")


def test_signature_says_what_it_is_for(tmp_path: Path) -> None:
    saved = crafted.saved_model({"serving_default": ONE})
    saved.meta_graphs[0].signature_def["serving_default"].method_name = "tensorflow/serving/classify"
    assert read(tmp_path, saved).method == "tensorflow/serving/classify"


def test_graph_for_serving_is_meant_among_several(tmp_path: Path) -> None:
    saved = crafted.saved_model({"serving_default": OTHER}, ("train",))
    crafted.add_graph(saved, {"serving_default": ONE}, ("serve", "gpu"))
    assert read(tmp_path, saved) == ONE


@pytest.mark.parametrize("signatures", [{}, {"a": ONE, "b": OTHER}, {"__saved_model_init_op": ONE}])
def test_without_a_serving_signature_it_is_refused_by_what_it_has(
    tmp_path: Path, signatures: dict[str, Signature]
) -> None:
    with pytest.raises(RefusedModel, match="no signature 'serving_default'"):
        read(tmp_path, crafted.saved_model(signatures))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 50, b"\x12\xff\xff\xff\x0f"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RefusedModel, match="not a SavedModel"):
        read(tmp_path, content)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = crafted.saved_model({"serving_default": ONE}).SerializeToString()
    with pytest.raises(RefusedModel):
        read(tmp_path, whole[:-3])


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedModel, match=r"saved_model\.pb"):
        signature(tmp_path)


def test_every_datatype_is_read(tmp_path: Path) -> None:
    specs = tuple(TensorSpec(name, name, (-1,)) for name in sorted(DTYPES))
    assert read(tmp_path, crafted.saved_model({"s": Signature(specs, specs)})).inputs == specs


def test_type_that_is_not_served_is_refused(tmp_path: Path) -> None:
    strange = Signature((TensorSpec("x", "COMPLEX64", (1,)),), ONE.outputs)
    with pytest.raises(RefusedModel, match=r"'x'.*type 8"):
        read(tmp_path, crafted.saved_model({"s": strange}))


def test_side_below_minus_one_is_free(tmp_path: Path) -> None:
    odd = Signature((TensorSpec("x", "FP32", (-7, 3)),), ONE.outputs)
    assert read(tmp_path, crafted.saved_model({"s": odd})).inputs[0].shape == (-1, 3)
