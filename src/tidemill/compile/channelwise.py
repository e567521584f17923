"""The weights of a language model's graph in int8, one scale for each output channel; in the command line's process.

A file of four bits has a scale and a zero for every 32 weights, which the processor must bring in for every 32
products. One scale a row leaves the sums in integers for as long as the activations' own scales last: of these, up to
192 of a row share one, where the engine alone takes 32. So the products of many tokens are quicker; the weights take
half as much room again to twice as much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import numpy as np

from tidemill.core.tensor import Array

ACTIVATIONS: Final = (192, 128, 96, 64, 32)
"""Of a row may share a scale."""
LARGEST: Final = 127


def quantise(rows: Array) -> tuple[Array, Array]:
    """Codes of int8 `[rows, columns]`, symmetric, and their scales `[rows, 1]` of float16."""
    scales = (np.abs(rows).max(axis=1, keepdims=True) / LARGEST).astype(np.float16)
    scales[scales == 0] = 1
    return np.clip(np.rint(rows / scales.astype(np.float32)), -LARGEST, LARGEST).astype(np.int8), scales


def sharing(widths: Collection[int]) -> int:
    """How many activations share a scale: what divides the inputs of all products, as one that it does not divide is
    computed in floats; 0, floats throughout, where nothing does."""
    return next((each for each in ACTIVATIONS if all(width % each == 0 for width in widths)), 0)


def rewrite(graph: Any) -> int:
    """Bring the weights of an `openvino.Model`'s products to int8; returns how many.

    What is no constant, or one of a kind that is not known here, is left alone.
    """
    from openvino import opset13 as opset

    widths = []
    for place, rows in _weights(graph):
        codes, scales = quantise(rows)
        _put(place, opset.multiply(opset.convert(opset.constant(codes), "f16"), opset.constant(scales)))
        widths.append(rows.shape[1])
    if widths:
        graph.set_rt_info(str(sharing(widths)), ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    return len(widths)


def restore(graph: Any, true: Callable[[Array], Array | None]) -> int:
    """Put in float16 what `true` says that weights are in truth, in place of what they were rounded to; returns how
    many. It says None where they are what the graph has."""
    from openvino import opset13 as opset

    restored = 0
    for place, rows in _weights(graph):
        found = true(rows)
        if found is not None:
            _put(place, opset.constant(found.astype(np.float16)))
            restored += 1
    return restored


def _weights(graph: Any) -> Iterator[tuple[Any, Array]]:
    """Each constant that a product reads, where it comes from and `[outputs, inputs]` in float32; one that several
    read, once."""
    done: set[str] = set()
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
            continue
        place = node.input_value(1)
        rows = None if place.get_node().get_friendly_name() in done else _rows(place.get_node())
        if rows is not None:
            yield place, rows
            done.add(node.input_value(1).get_node().get_friendly_name())


def _put(place: Any, bare: Any) -> None:
    """To all that read `place`, its embedding too."""
    from openvino import opset13 as opset

    made = opset.convert(bare, place.get_element_type().get_type_name())
    for reader in place.get_target_inputs():
        reader.replace_source_output(made.output(0))


class _Other(Exception):
    """It is no constant that is known here."""


def _rows(node: Any) -> Array | None:
    """Weights `[outputs, inputs]` in float32; None for what is left alone."""
    try:
        found = _value(node)
    except _Other:
        return None
    return found if found.ndim == 2 else None


def _value(node: Any) -> Array:
    """What a constant's unpacking comes to, in float32. Raises `_Other`."""
    kind = node.get_type_name()
    if kind == "Constant":
        return _constant(node)
    if kind not in ("Convert", "Multiply", "Subtract", "Reshape"):
        raise _Other(kind)
    first, *rest = (_value(node.input_value(i).get_node()) for i in range(node.get_input_size()))
    match kind:
        case "Multiply":
            return np.asarray(first * rest[0])
        case "Subtract":
            return np.asarray(first - rest[0])
        case "Reshape":
            return first.reshape(rest[0].astype(np.int64))
    return first


def _constant(node: Any) -> Array:
    """In float32, but integers of 64 bits, which are shapes, as they are."""
    match node.get_element_type().get_type_name():
        case "u4":
            packed = np.asarray(node.data).reshape(-1).view(np.uint8)
            halves = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
            return halves[: int(np.prod(node.shape))].reshape(node.shape).astype(np.float32)
        case "i64":
            return np.asarray(node.data)
        case "f16" | "f32" | "i8" | "u8":
            return np.asarray(node.data).astype(np.float32)
        case other:
            raise _Other(other)
