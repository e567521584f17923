"""The features of examples as the inputs of a model: pure; for Classify and Regress, over REST and over gRPC.

A feature goes to the input of its name, in row-major order, one example for each place of dimension 0. Features that
no input asks for are left alone, as TensorFlow's own parser does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from tidemill.core.errors import MissingInput, RequestTooLarge, WrongShape
from tidemill.core.tensor import Array, Signature, TensorSpec
from tidemill.doors import json_values

Features: TypeAlias = Mapping[str, Array]
"""Values of each feature as an array of one dimension: whole numbers in INT64, others in a float type, or bytes."""

ENCODED_NAMES = frozenset({"inputs", "examples"})
"""What TensorFlow's exporters call the input of a graph that parses examples itself."""


@dataclass(frozen=True, slots=True)
class Examples:
    """`context` belongs to every example; where both hold a feature, the example's counts. `encoded` gives each example
    as a `tensorflow.Example`, the context within, and is only called where a model parses them itself."""

    each: Sequence[Features]
    context: Features
    encoded: Callable[[], list[bytes]]


def tensors(signature: Signature, examples: Examples, bytes_max: int) -> dict[str, Array]:
    """The inputs of the model, not yet held against the signature.

    A context is copied to each example: copies beyond `bytes_max` are refused. Raises `MissingInput`,
    `RequestTooLarge`, `WrongDatatype`, `WrongShape` or `WrongValue`, each with the feature and the example.
    """
    copied = sum(_size(each) for each in examples.context.values()) * len(examples.each)
    if copied > bytes_max:
        raise RequestTooLarge(
            f"the context would take {copied} bytes in {len(examples.each)} examples, the most allowed is {bytes_max}"
            " (--body-bytes-max); send fewer examples at once"
        )
    if _parses_itself(signature, examples):
        strings = np.empty(len(examples.each), object)
        strings[:] = examples.encoded()
        return {signature.inputs[0].name: strings}
    return {spec.name: _stacked(spec, examples) for spec in signature.inputs}


def _parses_itself(signature: Signature, examples: Examples) -> bool:
    if len(signature.inputs) != 1:
        return False
    spec = signature.inputs[0]
    takes_strings = spec.datatype == "BYTES" and (spec.shape is None or len(spec.shape) == 1)
    named = spec.name in examples.each[0] or spec.name in examples.context
    return takes_strings and spec.name in ENCODED_NAMES and not named


def _stacked(spec: TensorSpec, examples: Examples) -> Array:
    name = spec.name
    shared = examples.context.get(name)
    if spec.shape == ():
        return _alone(spec, shared)
    parts: list[Array] = []
    for place, example in enumerate(examples.each):
        part = example.get(name, shared)
        if part is None:
            held = ", ".join(sorted({*example, *examples.context})) or "none"
            raise MissingInput(
                f"example {place} has no feature {name!r}, its features are {held:.200}; expected {spec}"
            )
        if parts and part.size != parts[0].size:
            raise WrongShape(
                f"example {place} has {part.size} values in feature {name!r}, example 0 has {parts[0].size}: rows of"
                " one length expected"
            )
        parts.append(part)
    # Features of one example may be whole numbers where those of another are not.
    if len({part.dtype for part in parts}) == 1:
        flat = _cast(spec, np.concatenate(parts))
    else:
        flat = np.concatenate([_cast(spec, part) for part in parts])
    return flat.reshape(_shape(spec, len(parts), parts[0].size))


def _alone(spec: TensorSpec, shared: Array | None) -> Array:
    if shared is None:
        raise MissingInput(f"input {spec.name!r} is one value for all examples; give it in `context`")
    if shared.size != 1:
        raise WrongShape(f"the context has {shared.size} values in feature {spec.name!r}, expected one")
    return _cast(spec, shared).reshape(())


def _shape(spec: TensorSpec, count: int, size: int) -> tuple[int, ...]:
    """Of `count` examples with `size` values each. One dimension besides the first may be free."""
    if spec.shape is None:
        return (count,) if size == 1 else (count, size)
    rest = spec.shape[1:]
    free = rest.count(-1)
    known = prod(side for side in rest if side >= 0)
    if free > 1:
        raise WrongShape(
            f"input {spec.name!r} has the shape {list(spec.shape)}, which the values of a feature do not tell; ask for"
            " predict, whose values are nested"
        )
    if (free == 0 and size != known) or (free == 1 and known == 0) or (free == 1 and size % known):
        raise WrongShape(
            f"each example has {size} values in feature {spec.name!r}, expected {'a multiple of ' if free else ''}"
            f"{known}: the input has the shape {list(spec.shape)} (-1: any size)"
        )
    return (count, *(size // known if side == -1 else side for side in rest))


def _cast(spec: TensorSpec, flat: Array) -> Array:
    if spec.datatype == "BOOL" and flat.dtype == np.int64 and bool(((flat == 0) | (flat == 1)).all()):
        return flat.astype(np.bool_)  # examples have no booleans
    return json_values.cast(spec, flat)


def _size(values: Array) -> int:
    held: Any = values
    return int(values.nbytes) + (sum(map(len, held)) if values.dtype == object else 0)
