"""Who makes and who reads each tensor of a graph, and what is known of its shape; runs where graphs do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import onnx
from google.protobuf.message import EncodeError

from tidemill.compress.graph import Graph
from tidemill.compress.layers import reads

Dim: TypeAlias = int | str | None
"""A size, the name of an unknown one, or None where nothing is known."""
PROBES: Final = ((37, 41, 43, 47, 53, 59, 61, 67), (71, 73, 79, 83, 89, 97, 101, 103))
"""Sizes that stand for the unknown ones of the inputs."""


class Wiring:
    """A picture of `graph` at one moment: make a new one after the graph's nodes have changed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.maker: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = {}
        self.outputs = {each.name for each in graph.model.graph.output}
        for node in graph.nodes:
            for name in node.output:
                self.maker[name] = node
            for name in reads(node):
                self.readers.setdefault(name, []).append(node)

    def constant(self, name: str) -> bool:
        """Whether it is an initializer that no caller can override."""
        return self.graph.shape(name) is not None

    def only_reader(self, name: str) -> Any | None:
        """The one node that reads `name`, where the model does not give it out as well."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def made_by(self, name: str, *ops: str) -> Any | None:
        """The node that makes `name`, where it is one of `ops`."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in ops else None

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element."""
        shape = self.graph.shape(name)
        if shape is None or any(size != 1 for size in shape):
            return None
        array = self.graph.array_or_none(name)
        return None if array is None else float(array.ravel()[0])

    def apart(self, node: Any) -> tuple[str, float] | None:
        """(tensor, number) of a node of two inputs of which the second, or either where order is free, is a number."""
        if len(node.input) != 2:
            return None
        for at in (1, 0) if node.op_type in {"Add", "Mul"} else (1,):
            number = self.scalar(node.input[at])
            if number is not None and not self.constant(node.input[1 - at]):
                return node.input[1 - at], number
        return None


def shapes(graph: Graph) -> dict[str, tuple[Dim, ...]]:
    """What is known of tensors' shapes; sizes that carry one name are the same in every run.

    onnx loses the names of unknown sizes where tensors broadcast. So it is asked twice, with numbers in their place:
    a size that follows one input's size both times carries its name.
    """
    unknown: dict[str, list[Any]] = {}
    shell = _shell(graph)
    for each in graph.model.graph.input:
        for at, dim in enumerate(each.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                unknown.setdefault(dim.dim_param or f"{each.name}.{at}", []).append((each.name, at))
    if len(unknown) > len(PROBES[0]):
        return {}
    first, second = (_probe(shell, unknown, sizes) for sizes in PROBES)
    names: dict[tuple[Dim, Dim], str] = {(a, b): name for name, a, b in zip(unknown, *PROBES, strict=False)}
    found: dict[str, tuple[Dim, ...]] = {}
    for name, shape in first.items():
        other = second.get(name, ())
        if len(other) == len(shape):
            found[name] = tuple(a if a == b else names.get((a, b)) for a, b in zip(shape, other, strict=True))
    return found


def _shell(graph: Graph) -> Any:
    """The model without its weights, whose shapes it has as inputs instead."""
    shell = onnx.ModelProto()
    shell.CopyFrom(graph.model)
    for name, array in graph.arrays.items():
        code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        shell.graph.input.append(onnx.helper.make_tensor_value_info(name, code, array.shape))
    return shell


def _probe(shell: Any, unknown: dict[str, list[tuple[str, int]]], sizes: Sequence[int]) -> dict[str, tuple[Dim, ...]]:
    inputs = {each.name: each for each in shell.graph.input}
    for places, size in zip(unknown.values(), sizes, strict=False):
        for name, at in places:
            inputs[name].type.tensor_type.shape.dim[at].dim_value = size
    for each in shell.graph.output:  # their names for unknown sizes would stand against the numbers
        each.type.tensor_type.ClearField("shape")
    try:
        told = onnx.shape_inference.infer_shapes(shell, data_prop=True)
    except (onnx.shape_inference.InferenceError, EncodeError):
        return {}
    return {
        each.name: tuple(
            int(dim.dim_value) if dim.HasField("dim_value") else None for dim in each.type.tensor_type.shape.dim
        )
        for each in (*told.graph.value_info, *told.graph.output, *told.graph.input)
        if each.type.tensor_type.HasField("shape")
    }


def attribute(node: Any, name: str, default: Any = None) -> Any:
    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default


def same(left: Sequence[Dim], right: Sequence[Dim]) -> bool:
    """Whether two shapes are known to be equal."""
    return len(left) == len(right) and all(a == b and a is not None for a, b in zip(left, right, strict=True))
