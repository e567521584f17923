"""A small classifier, data that it was made for, and a method that costs nothing to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidemill.compress.forms import Dense, Uniform
from tidemill.compress.method import Method, Option
from tidemill.compress.task import LayerResult, LayerTask, output_error

FEATURES, HIDDEN, CLASSES = 24, 48, 6


def save_net(repository: Path, name: str = "net", seed: int = 0) -> Path:
    """DIR/NAME/1/model.onnx, two layers and a ReLU between, with labels.txt; and `fit.npz` beside the repository."""
    chance = np.random.default_rng(seed)
    first = chance.normal(0, FEATURES**-0.5, (FEATURES, HIDDEN)).astype(np.float32)
    second = chance.normal(0, HIDDEN**-0.5, (HIDDEN, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
            helper.make_node("Add", ["a", "b1"], ["b"], "first_bias"),
            helper.make_node("Relu", ["b"], ["c"], "relu"),
            helper.make_node("MatMul", ["c", "w2"], ["logits"], "second"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", CLASSES])],
        [
            numpy_helper.from_array(first, "w1"),
            numpy_helper.from_array(np.full(HIDDEN, 0.1, np.float32), "b1"),
            numpy_helper.from_array(second, "w2"),
        ],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    place = repository / name / "1"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(model.SerializeToString())
    (place / "labels.txt").write_text("".join(f"kind {index}\n" for index in range(CLASSES)))
    rows = chance.normal(size=(200, FEATURES)).astype(np.float32)
    labels = (np.maximum(rows @ first + 0.1, 0) @ second).argmax(axis=1)
    np.savez(repository.parent / "fit.npz", x=rows, labels=labels)
    return place / "model.onnx"


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds every weight to a grid of `bits`."""

    def solve(self, task: LayerTask) -> LayerResult:
        levels = 2 ** int(task.options["bits"]) - 1
        low = np.minimum(task.weight.min(axis=1, keepdims=True), 0)
        high = np.maximum(task.weight.max(axis=1, keepdims=True), 0)
        scales = np.maximum((high - low) / levels, 1e-12).astype(np.float32)
        zero = np.clip(np.round(-low / scales), 0, levels).astype(np.uint8)
        codes = np.clip(np.round(task.weight / scales) + zero, 0, levels).astype(np.uint8)
        form = Uniform(codes, scales, zero, int(task.options["bits"]))
        errors = [output_error(task.weight, form.decode(), moments) for moments in (task.fit, task.held)]
        return LayerResult(form, None, None, *errors)


@dataclass(frozen=True, slots=True)
class Wipes:
    """Loses everything."""

    def solve(self, task: LayerTask) -> LayerResult:
        return LayerResult(Dense(np.zeros_like(task.weight)), None, None, 1.0, 1.0)


ROUNDS = Method("rounds", "Rounds to a grid.", {"bits": Option(int, 8, "bits", 2, 8)}, solver=Rounds())
WIPES = Method("wipes", "Loses everything.", {}, solver=Wipes())
