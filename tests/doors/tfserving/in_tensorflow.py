"""Signatures of SavedModels that are for classify or regress; run by `tests/engine/test_tensorflow.py` beside
TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import saved_models
from tidemill.core.contracts import Engine
from tidemill.core.errors import RefusedByEngine, UnknownSignature
from tidemill.core.package import ModelConfig, ModelPackage
from tidemill.doors.tfserving import dialect, results, translate_examples
from tidemill.engine import openvino, tensorflow
from tidemill.repository import layout


def loaded(folder: Path, signature: str | None = None) -> Engine:
    return tensorflow.load(ModelPackage("m", 1, folder, "savedmodel", 0, ModelConfig(signature=signature)), 1)


def classified(engine: Engine, body: dict[str, Any]) -> Any:
    wanted = results.scoring(engine.signature)
    asked = translate_examples.question(engine.signature, json.dumps(body).encode(), dialect.classifying, 1 << 20)
    tensors = engine.predict(asked.work.inputs, asked.work.outputs)
    return json.loads(translate_examples.classes(results.ranking(wanted, (), tensors, asked.count)))["results"]


def regressed(engine: Engine, body: dict[str, Any]) -> Any:
    wanted = results.regressed(engine.signature)
    asked = translate_examples.question(engine.signature, json.dumps(body).encode(), dialect.regressing, 1 << 20)
    tensors = engine.predict(asked.work.inputs, asked.work.outputs)
    return json.loads(translate_examples.values(results.values(wanted, tensors, asked.count)))["results"]


def test_tensorflow_parses_the_examples_of_its_own_classify_and_regress(tmp_path: Path) -> None:
    folder = saved_models.classifier(tmp_path / "saved")
    body = {"examples": [{"x": [1.0, 2.0], "unused": "a"}, {}], "context": {"x": [0.5, 0.25]}}
    classify, regress = loaded(folder), loaded(folder, "sum")
    assert (classify.signature.name, classify.signature.method) == ("serving_default", results.CLASSIFY)
    assert (regress.signature.name, regress.signature.method) == ("sum", results.REGRESS)
    assert classified(classify, body) == [[["low", 2.0], ["high", 4.0]], [["low", 1.0], ["high", 0.5]]]
    assert regressed(regress, body) == [3.0, 0.75]
    assert classified(classify, body | {"signature_name": "serving_default"})
    assert regressed(regress, body | {"signature_name": "sum"})
    with pytest.raises(UnknownSignature, match="not for tensorflow/serving/regress"):
        regressed(classify, body)
    with pytest.raises(UnknownSignature, match="not for tensorflow/serving/classify"):
        classified(regress, body)
    with pytest.raises(UnknownSignature, match="there is no signature 'sum'; this model has 'serving_default'"):
        classified(classify, body | {"signature_name": "sum"})


def test_what_tensorflow_cannot_parse_is_the_caller_s(tmp_path: Path) -> None:
    engine = loaded(saved_models.classifier(tmp_path / "saved"))
    for features in ({}, {"x": [1.0]}, {"x": [1, 2]}, {"x": ["a", "b"]}):
        with pytest.raises(RefusedByEngine, match="x"):
            classified(engine, {"examples": [features]})


def test_a_dense_classifier_is_served_by_openvino(tmp_path: Path) -> None:
    package = layout.package("dense", 1, saved_models.dense_classifier(tmp_path / "saved"))
    assert package.signature is not None
    assert package.signature.method == results.CLASSIFY
    engine = openvino.load(package, 1)
    assert classified(engine, {"examples": [{"inputs": [1, 2]}]}) == [[["0", 2.0], ["1", 4.0]]]
    with pytest.raises(UnknownSignature):
        regressed(engine, {"examples": [{"inputs": [1, 2]}]})
