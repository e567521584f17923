"""What the engine on TensorFlow answers; run by `test_tensorflow.py` in an environment that has TensorFlow."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import saved_models
from tidemill.core.contracts import WarmUpRequest
from tidemill.core.errors import EngineFailed, RefusedByEngine, RefusedModel
from tidemill.core.package import ModelConfig, ModelPackage
from tidemill.core.request import Predict
from tidemill.core.tensor import DTYPES, Signature
from tidemill.deploy.opening import open_engine
from tidemill.doors.tfserving import results
from tidemill.engine import openvino, tensorflow
from tidemill.repository import layout, saved_model

NUMBERS = [name for name in DTYPES if name != "BYTES"]


def test_no_signature_but_the_chosen_one_is_served(tmp_path: Path) -> None:
    folder = saved_models.many(tmp_path / "many")
    asked = {}
    for name in (None, "serving_default", "twice"):
        config = ModelConfig(signature=name)
        engine = tensorflow.load(ModelPackage("many", 1, folder, "savedmodel", 0, config), 1)
        asked[name] = engine.predict({"x": np.float32([[1.0, 2.0]])}, ())["y"].tolist()
        engine.close()
    assert asked == {None: [[2.0, 3.0]], "serving_default": [[2.0, 3.0]], "twice": [[2.0, 4.0]]}
    with pytest.raises(RefusedModel, match="no signature 'thrice'; it has parsed, serving_default, twice"):
        tensorflow.load(ModelPackage("many", 1, folder, "savedmodel", 0, ModelConfig(signature="thrice")), 1)


def test_all_signatures_are_opened_on_one_session(tmp_path: Path) -> None:
    opened = open_engine("tensorflow", layout.package("three", 1, saved_models.three(tmp_path / "three")), 1)
    assert {each.name: each.method for each in opened.signature.further} == {
        "kinds": results.CLASSIFY, "sum": results.REGRESS, "words": results.PREDICT,
    }  # fmt: skip
    assert opened.signature.left_out == ()
    x = {"x": np.float32([[1, 2], [3, 4]])}
    told = {name: one.engines[0].predict(x, ()) for name, one in opened.further.items()}
    assert opened.engine.predict(x, ())["y"].tolist() == [[2, 4], [6, 8]]
    assert told["kinds"]["scores"].tolist() == [[0.5, 1], [1.5, 2]]
    assert told["sum"]["outputs"].tolist() == [3, 7]
    assert [list(map(float, row)) for row in told["words"]["text"]] == [[1, 2], [3, 4]]
    assert all(one.rows_apart for one in opened.further.values())
    opened.close()


def test_variables_are_one_for_all_signatures_and_opening_them_assigns_none(tmp_path: Path) -> None:
    opened = open_engine("tensorflow", layout.package("kept", 1, saved_models.kept(tmp_path / "kept")), 1)
    add = opened.further["add"]
    assert opened.rows_apart
    assert not add.rows_apart, "a request that assigns runs alone: what is joined would be added up"
    assert opened.engine.predict({"x": np.float32([1])}, ())["y"].tolist() == [1]
    add.engines[0].predict({"by": np.float32([2, 3])}, ())
    assert opened.engine.predict({"x": np.float32([1])}, ())["y"].tolist() == [6]
    opened.close()


def test_a_request_that_warms_up_goes_to_the_signature_that_it_names(tmp_path: Path) -> None:
    def warm_ups(package: ModelPackage, signature: Signature) -> list[WarmUpRequest]:
        assert [each.name for each in signature.further] == ["add"]
        return [WarmUpRequest("first", Predict({"by": np.float32([4])}, signature="add"))]

    package = layout.package("kept", 1, saved_models.kept(tmp_path / "kept"))
    opened = open_engine("tensorflow", package, 2, instances=2, warm_ups=warm_ups)
    assert opened.warmed == 1
    assert [len(one.engines) for one in opened.further.values()] == [1 + len(opened.narrow)]
    opened.close()


def test_openvino_leaves_out_the_signature_that_it_cannot_run(tmp_path: Path) -> None:
    folder = saved_models.three(tmp_path / "three")
    before = sorted(Path(tempfile.gettempdir()).glob("tidemill-*"))
    opened = open_engine("openvino", layout.package("three", 1, folder), 1)
    x = {"x": np.float32([[1, 2], [3, 4]])}
    assert opened.engine.predict(x, ())["y"].tolist() == [[2, 4], [6, 8]]
    told = {name: one.engines[0].predict(x, ()) for name, one in opened.further.items()}
    assert {name: answer.popitem()[1].tolist() for name, answer in told.items()} == {
        "kinds": [[0.5, 1], [1.5, 2]], "sum": [3, 7],
    }  # fmt: skip
    ((name, reason),) = opened.signature.left_out
    assert name == "words"
    assert "OpenVINO" in reason
    assert 'engine = "tensorflow"' in reason
    assert "tidemill-" not in reason
    assert sorted(Path(tempfile.gettempdir()).glob("tidemill-*")) == before
    opened.close()


def test_openvino_reads_the_signature_that_is_wanted_of_its_own(tmp_path: Path) -> None:
    folder = saved_models.many(tmp_path / "many")
    config = ModelConfig(signature="twice", signatures=())
    signature = saved_model.signature(folder, "twice")
    opened = open_engine("openvino", ModelPackage("many", 1, folder, "savedmodel", 0, config, signature), 1)
    assert opened.engine.predict({"x": np.float32([[1, 2]])}, ())["y"].tolist() == [[2, 4]]
    assert dict(opened.signature.left_out).keys() == {"parsed", "serving_default"}
    opened.close()


def test_examples_are_parsed_where_the_signature_does(tmp_path: Path) -> None:
    """What OpenVINO refuses: strings of `tf.Example`."""
    folder = saved_models.many(tmp_path / "many")
    package = layout.package("many", 1, folder)
    config = ModelConfig(signature="parsed")
    engine = tensorflow.load(ModelPackage("many", 1, package.path, "savedmodel", 0, config), 1)
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[4.0, 5.0]))
    example = tf.train.Example(features=tf.train.Features(feature={"x": feature})).SerializeToString()
    answer = engine.predict({"examples": np.array([example, example], dtype=object)}, ())
    np.testing.assert_array_equal(answer["y"], np.float32([[5, 6], [5, 6]]))
    with pytest.raises(RefusedByEngine, match="refused these inputs"):
        engine.predict({"examples": np.array([b"\xff\xff"], dtype=object)}, ())


def test_variables_that_are_assigned_keep_their_values(tmp_path: Path) -> None:
    engine = tensorflow.load(layout.package("counter", 1, saved_models.counter(tmp_path / "counter")), 1)
    seen = [engine.predict({"by": np.float32(2)}, ())["total"].item() for _ in range(3)]
    assert seen == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("name", "operation"), [("counter", "AssignAddVariableOp"), ("picky", "Assert"), ("classifier", "ParseExampleV2")]
)
def test_what_tensorflow_has_and_openvino_lacks_is_told_by_its_name(tmp_path: Path, name: str, operation: str) -> None:
    package = layout.package(name, 1, getattr(saved_models, name)(tmp_path / name))
    with pytest.raises(RefusedModel) as refusal:
        openvino.load(package, 1)
    said = refusal.value.message
    assert re.search(rf"operations:? {operation}\b", said)
    assert 'engine = "tensorflow"' in said


def test_operations_are_those_of_the_signature_that_is_served(tmp_path: Path) -> None:
    folder = saved_models.many(tmp_path / "many")
    told = {name: saved_model.operations(folder, name) for name in ("serving_default", "twice", "parsed")}
    assert {"AddV2", "Mul", "ParseExampleV2"} & told["serving_default"] == {"AddV2"}
    assert {"AddV2", "Mul", "ParseExampleV2"} & told["twice"] == {"Mul"}
    assert {"AddV2", "Mul", "ParseExampleV2"} & told["parsed"] == {"AddV2", "ParseExampleV2"}


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_goes_through_bit_for_bit(tmp_path: Path, datatype: str) -> None:
    dtype = DTYPES[datatype]
    values: list[Any] = [0, 1] if dtype.kind == "b" else [0, 1, 100]
    if dtype.kind in "iu":
        values += [np.iinfo(dtype).min, np.iinfo(dtype).max]
    x = np.array(values, dtype)
    engine = tensorflow.load(layout.package("same", 1, saved_models.same(tmp_path / "same", dtype)), 1)
    assert [spec.datatype for spec in engine.signature.inputs + engine.signature.outputs] == [datatype, datatype]
    answer = engine.predict({"x": x}, ())["y"]
    assert answer.dtype == dtype
    assert answer.tobytes() == x.tobytes()


def test_text_goes_through_whatever_bytes_it_holds(tmp_path: Path) -> None:
    engine = tensorflow.load(layout.package("same", 1, saved_models.same(tmp_path / "same", np.dtype(object))), 1)
    x = np.array([b"", b"\0a\0", "潮".encode(), b"\xff"], dtype=object)
    answer = engine.predict({"x": x}, ())["y"]
    assert answer.dtype == object
    assert answer.tolist() == x.tolist()


def test_values_that_the_model_refuses_are_the_caller_s(tmp_path: Path) -> None:
    engine = tensorflow.load(layout.package("picky", 1, saved_models.picky(tmp_path / "picky")), 1)
    assert engine.predict({"x": np.float32([1.0])}, ())["y"].tolist() == [1.0]
    with pytest.raises(RefusedByEngine, match="must be positive"):
        engine.predict({"x": np.float32([-1.0])}, ())


def test_a_folder_that_tensorflow_cannot_load_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = saved_models.counter(tmp_path / "counter")
    for part in (folder / "variables").iterdir():
        part.unlink()
    with pytest.raises(RefusedModel, match="TensorFlow cannot load"):
        tensorflow.load(layout.package("counter", 1, folder), 1)


def test_no_other_format_is_taken(tmp_path: Path) -> None:
    with pytest.raises(RefusedModel, match="reads SavedModels"):
        tensorflow.load(ModelPackage("m", 1, tmp_path / "model.onnx", "onnx", 0), 1)


def test_forks_answer_after_the_first_is_closed(tmp_path: Path) -> None:
    first = tensorflow.load(layout.package("same", 1, saved_models.same(tmp_path / "same", np.dtype(np.int8))), 1)
    second = first.fork()
    first.close()
    assert second.predict({"x": np.int8([3])}, ())["y"].tolist() == [3]
    assert EngineFailed.code == "engine.failed"


def test_our_schemas_and_tensorflow_s_live_in_one_process() -> None:
    """Both register `tensorflow.TensorProto`; in one pool of descriptors the second would be an error."""
    from tensorflow_serving.apis import predict_pb2

    from tidemill.core import schemas

    ours = schemas.message("tensorflow.serving.PredictRequest")()
    ours.model_spec.name = "tides"
    ours.inputs["x"].dtype = 1
    ours.inputs["x"].float_val.append(1.5)
    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert tf.make_ndarray(theirs.inputs["x"]).tolist() == 1.5
    assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(deterministic=True)
