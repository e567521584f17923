"""Small SavedModels, written by TensorFlow; for tests that run where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
info = v1.saved_model.build_tensor_info


def plus_minus(folder: Path) -> Path:
    """x [-1, -1] -> up = x + 1, down = x - 1."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, "x")])
    def both(x: Any) -> Any:
        return {"up": x + 1.0, "down": x - 1.0}

    return _saved(folder, both)


def same(folder: Path, dtype: np.dtype[Any]) -> Path:
    """x [-1] of `dtype` -> y, the same."""

    kind = tf.string if dtype.hasobject else tf.as_dtype(dtype)

    @tf.function(input_signature=[tf.TensorSpec([None], kind, "x")])
    def answer(x: Any) -> Any:
        return {"y": tf.identity(x)}

    return _saved(folder, answer)


def counter(folder: Path) -> Path:
    """Adds `by` to a variable, and answers the total."""
    module = tf.Module()
    module.total = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, "by")])
    def add(by: Any) -> Any:
        return {"total": module.total.assign_add(by)}

    return _saved(folder, add, module)


def picky(folder: Path) -> Path:
    """Refuses what is not positive."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def answer(x: Any) -> Any:
        check = tf.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive"])
        with tf.control_dependencies([check]):
            return {"y": tf.identity(x)}

    return _saved(folder, answer)


def many(folder: Path) -> Path:
    """Three signatures: serving_default adds one, twice doubles, parsed adds one to feature `x` of `tf.Example`s."""
    floats = tf.TensorSpec([None, 2], tf.float32, "x")

    @tf.function(input_signature=[floats])
    def plus_one(x: Any) -> Any:
        return {"y": x + 1.0}

    @tf.function(input_signature=[floats])
    def twice(x: Any) -> Any:
        return {"y": x * 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def parsed(examples: Any) -> Any:
        read = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([2], tf.float32)})
        return {"y": read["x"] + 1.0}

    signatures = {"serving_default": plus_one, "twice": twice, "parsed": parsed}
    return _saved(folder, signatures)


def classifier(folder: Path) -> Path:
    """As TensorFlow 1 exports it: `tf.Example`s with x [2] -> serving_default classifies (scores 2 x, classes low and
    high), `sum` regresses."""
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], "examples")
        x = v1.io.parse_example(examples, {"x": v1.io.FixedLenFeature([2], tf.float32)})["x"]
        classes = tf.tile(tf.constant([["low", "high"]]), [tf.shape(x)[0], 1])
        inputs = {"inputs": info(examples)}
        return _exported(
            folder,
            session,
            {
                "serving_default": (inputs, {"scores": info(x * 2.0), "classes": info(classes)}, "classify"),
                "sum": (inputs, {"outputs": info(tf.reduce_sum(x, 1))}, "regress"),
            },
        )


def dense_classifier(folder: Path) -> Path:
    """inputs FP32 [-1, 2] -> scores, twice as much; serving_default is for classify."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        signature = {"inputs": info(x)}, {"scores": info(x * 2.0)}, "classify"
        return _exported(folder, session, {"serving_default": signature})


def three(folder: Path) -> Path:
    """x FP32 [-1, 2] -> serving_default: y, twice as much (by a variable); `kinds` classifies: scores, half of x; `sum`
    regresses: outputs, the sum of x; `words` gives strings, which OpenVINO does not; `__init` is no signature."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        factor = v1.get_variable("factor", initializer=2.0, use_resource=True)
        session.run(v1.global_variables_initializer())
        inputs = {"x": info(x)}
        return _exported(
            folder,
            session,
            {
                "serving_default": (inputs, {"y": info(x * factor)}, "predict"),
                "kinds": (inputs, {"scores": info(x * 0.5)}, "classify"),
                "sum": (inputs, {"outputs": info(tf.reduce_sum(x, 1))}, "regress"),
                "words": (inputs, {"text": info(tf.strings.as_string(x))}, "predict"),
                "__init": ({}, {"done": info(tf.constant(1.0))}, "predict"),
            },
        )


def kept(folder: Path) -> Path:
    """serving_default: x [-1] -> y, x plus a variable; `add` adds `by` [-1] to it."""
    module = tf.Module()
    module.total = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def plus(x: Any) -> Any:
        return {"y": x + module.total}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "by")])
    def add(by: Any) -> Any:
        return {"done": by + 0.0 * module.total.assign_add(tf.reduce_sum(by))}

    return _saved(folder, {"serving_default": plus, "add": add}, module)


def _exported(folder: Path, session: Any, signatures: dict[str, tuple[Any, Any, str]]) -> Path:
    made = {
        name: v1.saved_model.build_signature_def(inputs, outputs, f"tensorflow/serving/{verb}")
        for name, (inputs, outputs, verb) in signatures.items()
    }
    builder = v1.saved_model.Builder(str(folder))
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=made)
    builder.save()
    return folder


def _saved(folder: Path, signatures: Any, module: Any = None) -> Path:
    module = module or tf.Module()
    module.kept = signatures
    tf.saved_model.save(module, str(folder), signatures)
    return folder
