"""TensorFlow Serving's REST dialect of classify and regress, both ways, pure: `examples`, and a `context` for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tidemill.core import schemas
from tidemill.core.errors import MalformedRequest, WrongDatatype, WrongValue
from tidemill.core.request import Predict
from tidemill.core.tensor import Array, Signature
from tidemill.core.text import short
from tidemill.doors import json_values
from tidemill.doors.tfserving.examples import Examples, Features, tensors
from tidemill.doors.tfserving.results import Ranking
from tidemill.doors.tfserving.spec import chosen, word_for
from tidemill.doors.tfserving.translate import from_b64, is_b64

Example = schemas.message("tensorflow.Example")

EXACT = 2**53
Want: TypeAlias = Callable[[Signature], tuple[Any, tuple[str, ...]]]
"""What is asked of a signature, in the words of `results`, and the outputs that takes."""


class Question:
    """A parsed request for `count` examples; `wanted` says which outputs are asked for, in the words of `results`."""

    __slots__ = ("count", "timeout_s", "wanted", "work")

    def __init__(self, work: Predict, wanted: Any, count: int) -> None:
        self.work = work
        self.wanted = wanted
        self.count = count
        self.timeout_s: float | None = None


def question(own: Signature, body: bytes, want: Want, bytes_max: int) -> Question:
    """`own` is the model's signature, and knows its others.

    Raises the errors of the branch `CallerError` that tell what is wrong with the request.
    """
    asked = json_values.parse(body)
    if not isinstance(asked, dict):
        raise MalformedRequest(f"the body is a JSON {type(asked).__name__}, expected an object")
    signature = chosen(own, asked.get("signature_name", ""))
    wanted, outputs = want(signature)
    each = asked.get("examples")
    if not isinstance(each, list) or not each:
        raise MalformedRequest("`examples` is expected to be a list with at least one example")
    context = _features("the context", asked.get("context", {}))
    features = [_features(f"example {place}", example) for place, example in enumerate(each)]
    given = Examples(features, context, lambda: [_encoded({**context, **example}) for example in features])
    inputs = tensors(signature, given, bytes_max)
    signature.check(inputs)
    return Question(Predict(inputs, outputs, signature=word_for(signature, own)), wanted, len(each))


def classes(found: Ranking) -> bytes:
    results = [
        [[label, score] for label, score in zip(labels, scores, strict=True)]
        for labels, scores in zip(found.labels, found.scores, strict=True)
    ]
    return json_values.render({"results": results})


def values(found: Array) -> bytes:
    """Under `results`, where TensorFlow Serving has them, and under `result`, where its documents do."""
    return json_values.render({"results": found, "result": found})


def _features(whose: str, given: Any) -> Features:
    if not isinstance(given, dict):
        raise MalformedRequest(f"{whose} is {short(given)}, expected an object of features by name")
    return {name: _values(whose, name, value) for name, value in given.items()}


def _values(whose: str, name: str, given: Any) -> Array:
    """One kind of values, as `tensorflow.Example` has them; booleans are 0 and 1, and numbers with and without a point
    may stand together."""
    held = given if isinstance(given, list) else [given]
    kinds = set(map(type, held))
    if kinds <= {int, bool}:
        try:
            return np.array(held, np.int64)
        except OverflowError as error:
            largest = max(held, key=abs)
            raise WrongValue(f"{whose} holds {short(largest)} in feature {short(name)}, beyond 64 bits") from error
    if kinds <= {int, float}:
        inexact = [value for value in held if type(value) is int and abs(value) > EXACT] if int in kinds else []
        if inexact:
            raise WrongValue(f"{whose} holds {inexact[0]} in feature {short(name)}, which a float cannot")
        return np.array(held, np.float64)
    if kinds <= {str, dict}:
        strings = np.empty(len(held), object)
        strings[:] = [_bytes(whose, name, value) for value in held]
        return strings
    words = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in kinds))
    raise WrongDatatype(f"{whose} holds {words} in feature {short(name)}; expected one or more numbers or strings")


def _bytes(whose: str, name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if is_b64(value):
        return from_b64(name, value["b64"])
    raise WrongDatatype(f"{whose} holds an object in feature {short(name)}; expected a string or {{'b64': ...}}")


def _encoded(features: Features) -> bytes:
    example = Example()
    for name, array in features.items():
        feature = example.features.feature[name]
        if array.dtype == object:
            feature.bytes_list.value.extend(array.tolist())
        elif array.dtype == np.int64:
            feature.int64_list.value.extend(array.tolist())
        else:
            feature.float_list.value.extend(array.tolist())
    return bytes(example.SerializeToString())
