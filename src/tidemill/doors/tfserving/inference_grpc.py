"""Classify, Regress and MultiInference messages to examples and back: pure; runs in the owner process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tidemill.core import schemas
from tidemill.core.errors import MalformedRequest
from tidemill.core.tensor import Array
from tidemill.doors.tfserving.examples import Examples
from tidemill.doors.tfserving.results import CLASSIFY, REGRESS, Ranking
from tidemill.doors.tfserving.tensor_proto import Message

ClassificationResult = schemas.message("tensorflow.serving.ClassificationResult")
RegressionResult = schemas.message("tensorflow.serving.RegressionResult")

TASKS_MAX = 64


def examples(message: Message) -> Examples:
    """What an `Input` holds. Raises `MalformedRequest` when that is nothing."""
    kind = message.WhichOneof("kind")
    chosen = getattr(message, kind) if kind else None
    if chosen is None or not chosen.examples:
        raise MalformedRequest("the input is empty; expected at least one example")
    context = chosen.context if kind == "example_list_with_context" else None
    given = list(chosen.examples)

    def encoded() -> list[bytes]:
        # Encodings of one message concatenate to their merge, in which the later value of a feature counts.
        before = b"" if context is None else bytes(context.SerializeToString())
        return [before + bytes(each.SerializeToString()) for each in given]

    return Examples([_features(each) for each in given], {} if context is None else _features(context), encoded)


def _features(example: Message) -> dict[str, Array]:
    return {name: _values(feature) for name, feature in example.features.feature.items()}


def _values(feature: Message) -> Array:
    kind = feature.WhichOneof("kind")
    held: Any = getattr(feature, kind).value if kind else ()
    if kind == "bytes_list":
        strings = np.empty(len(held), object)
        strings[:] = held
        return strings
    return np.fromiter(held[:], np.int64 if kind == "int64_list" else np.float32, len(held))


def check_tasks(tasks: Iterable[Message]) -> None:
    """As TensorFlow Serving has them: all of one model. Raises `MalformedRequest`."""
    specs: set[bytes] = set()
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        spec = task.model_spec
        which = type(spec)()
        which.CopyFrom(spec)
        which.ClearField("signature_name")
        specs.add(which.SerializeToString())
        if not spec.name or len(specs) > 1:
            raise MalformedRequest(f"all tasks are expected to ask one version of one model; one asks {spec.name!r}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise MalformedRequest(f"method_name is {task.method_name!r:.100}, expected {CLASSIFY!r} or {REGRESS!r}")
        if (spec.signature_name, task.method_name) in seen:
            raise MalformedRequest(f"two tasks ask signature {spec.signature_name!r:.100} for {task.method_name}")
        seen.add((spec.signature_name, task.method_name))
        if len(seen) > TASKS_MAX:
            raise MalformedRequest(f"there are more than {TASKS_MAX} tasks")
    if not seen:
        raise MalformedRequest("there are no tasks; expected at least one")


def classification(found: Ranking) -> Message:
    """A ClassificationResult."""
    result = ClassificationResult()
    for labels, scores in zip(found.labels, found.scores.tolist(), strict=True):
        add = result.classifications.add().classes.add
        for label, score in zip(labels, scores, strict=True):
            add(label=label, score=score)
    return result


def regression(values: Array) -> Message:
    """A RegressionResult."""
    return RegressionResult(regressions=[{"value": value} for value in values.tolist()])
