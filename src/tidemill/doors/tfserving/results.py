"""A model's outputs as classes with scores, or as one value for each example: pure; for Classify and Regress.

The outputs' names of TensorFlow's own signatures count (`classes` and `scores`, `outputs`); without them the only
output that has the right type and rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core.errors import EngineFailed, UnknownSignature
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})


@dataclass(frozen=True, slots=True)
class Scoring:
    """The outputs that tell classes: their names, their scores, or both."""

    classes: str | None
    scores: str | None

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in (self.classes, self.scores) if name is not None)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Of each example its classes and their scores, in the model's order; both [examples][classes]."""

    labels: Sequence[Sequence[str]]
    scores: Array


def scoring(signature: Signature) -> Scoring:
    """Raises `UnknownSignature` for a model that cannot be asked to classify."""
    _check_method(signature, CLASSIFY)
    by_name = {spec.name: spec for spec in signature.outputs}
    classes, scores = by_name.get("classes"), by_name.get("scores")
    if classes is not None and classes.datatype != "BYTES":
        classes = None
    if scores is not None and scores.datatype not in FLOATS:
        scores = None
    if classes is None and scores is None:
        scores = _only([spec for spec in signature.outputs if _has_rank(spec, 2)], signature, CLASSIFY)
    return Scoring(classes.name if classes else None, scores.name if scores else None)


def ranking(wanted: Scoring, labels: Sequence[str], tensors: Tensors, count: int) -> Ranking:
    """`labels` name the classes of a model that only gives scores; without them their places do.

    Raises `UnknownSignature` for outputs of another shape, which a model of free shapes may give, and `EngineFailed`
    for classes and scores that do not agree.
    """
    names = None if wanted.classes is None else tensors[wanted.classes]
    scores = None if wanted.scores is None else tensors[wanted.scores]
    for output, array in ((wanted.classes, names), (wanted.scores, scores)):
        if array is not None and (array.ndim != 2 or len(array) != count):
            raise _misshapen(output, array, f"[{count}, classes]", CLASSIFY)
    if names is not None and scores is not None and names.shape != scores.shape:
        raise EngineFailed(f"the model gives {list(names.shape)} classes and {list(scores.shape)} scores")
    if names is not None:
        told = [[value.decode("utf-8", "replace") for value in row] for row in names.tolist()]
        return Ranking(told, np.zeros(names.shape, np.float32) if scores is None else _narrow(scores))
    assert scores is not None  # noqa: S101 - `scoring` gives one of both
    width = scores.shape[1]
    if labels and len(labels) != width:
        raise EngineFailed(f"the model gives {width} scores, its labels (tidemill.toml, labels.txt) are {len(labels)}")
    named = list(labels) or [str(place) for place in range(width)]
    return Ranking([named] * count, _narrow(scores))


def regressed(signature: Signature) -> str:
    """The output that holds the values. Raises `UnknownSignature` for a model that cannot be asked to regress."""
    _check_method(signature, REGRESS)
    for spec in signature.outputs:
        if spec.name == "outputs" and spec.datatype in FLOATS:
            return spec.name
    fitting = [spec for spec in signature.outputs if _has_rank(spec, 1) or (_has_rank(spec, 2) and _is_column(spec))]
    return _only(fitting, signature, REGRESS).name


def values(output: str, tensors: Tensors, count: int) -> Array:
    """FP32 [examples]. Raises `UnknownSignature` for an output of another shape."""
    array = tensors[output]
    if array.shape not in {(count,), (count, 1)}:
        raise _misshapen(output, array, f"[{count}] or [{count}, 1]", REGRESS)
    return _narrow(array.reshape(count))


def _check_method(signature: Signature, asked: str) -> None:
    if signature.method not in (PREDICT, asked):
        raise UnknownSignature(f"signature {signature.name!r} is for {signature.method}, not for {asked}")


def _has_rank(spec: TensorSpec, rank: int) -> bool:
    return spec.datatype in FLOATS and (spec.shape is None or len(spec.shape) == rank)


def _is_column(spec: TensorSpec) -> bool:
    return spec.shape is None or spec.shape[1] in (1, -1)


def _only(fitting: list[TensorSpec], signature: Signature, asked: str) -> TensorSpec:
    if len(fitting) == 1:
        return fitting[0]
    wanted = "`classes` or `scores`, or one float output of [examples, classes]"
    if asked == REGRESS:
        wanted = "`outputs`, or one float output of [examples] or [examples, 1]"
    outputs = ", ".join(map(str, signature.outputs)) or "none"
    raise UnknownSignature(f"this model cannot be asked for {asked}: expected {wanted}, its outputs are {outputs}")


def _misshapen(output: Any, array: Array, wanted: str, asked: str) -> UnknownSignature:
    return UnknownSignature(
        f"this model cannot be asked for {asked} like this: output {output!r} has shape {list(array.shape)}, expected"
        f" {wanted}"
    )


def _narrow(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
