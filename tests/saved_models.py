"""Small SavedModels, written by TensorFlow; for tests that run where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


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


def _saved(folder: Path, signatures: Any, module: Any = None) -> Path:
    module = module or tf.Module()
    module.kept = signatures
    tf.saved_model.save(module, str(folder), signatures)
    return folder
