"""Which tensors of a graph static int8 quantises besides the inputs of its layers; runs where graphs do.

A kernel of the int8 kind needs all its inputs, and often its output, as codes: a convolution is one from input to
output, the residual between two of them too, and both products of attention.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidemill.compress.fuse import MOVES
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.wiring import Wiring

BOUNDS: Final = ("Relu", "Clip")
"""What a kernel does on its way out, since its codes end where these cut."""
JOINS: Final = ("Add", "Concat", "GlobalAveragePool", "AveragePool")
PASSES: Final = (*MOVES, "MaxPool")


@dataclass(frozen=True, slots=True)
class Product:
    """One MatMul of two activations. `left` and `right` are the tensors that its inputs are, moved about by the nodes
    `left_moves` and `right_moves` (first to last)."""

    node: str
    left: str
    right: str
    left_moves: tuple[str, ...]
    right_moves: tuple[str, ...]


def products(graph: Graph, layers: Collection[str]) -> list[Product]:
    """MatMuls of which the right side was made by one of the named layers, straight or as rows."""
    wiring = Wiring(graph)
    outputs = {}
    for layer in graph.layers():
        if layer.name in layers:
            outputs[graph.node(layer.add).output[0] if layer.add else layer.output] = layer.name
    found = []
    for node in graph.nodes:
        if node.op_type != "MatMul" or any(wiring.constant(name) for name in node.input):
            continue
        left, left_moves = origin(wiring, node.input[0])
        right, right_moves = origin(wiring, node.input[1])
        if right in outputs:
            found.append(Product(node.name, left, right, left_moves, right_moves))
    return found


def origin(wiring: Wiring, name: str) -> tuple[str, tuple[str, ...]]:
    """What `name` is a view of, and the nodes, first to last, that move it about for `name` alone."""
    moves: list[str] = []
    while wiring.only_reader(name) is not None and (node := wiring.made_by(name, *MOVES)) is not None:
        if wiring.constant(node.input[0]):
            break
        moves.insert(0, node.name)
        name = node.input[0]
    return name, tuple(moves)


def through(graph: Graph, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Tensors that all their readers should read as codes: outputs of convolutions and of what joins them."""
    wiring = Wiring(graph)
    convolutions = {layer.name for layer in layers if layer.op == "Conv"}
    coded: dict[str, None] = {}

    for node in graph.nodes:
        taken = node.name in convolutions
        if node.op_type in JOINS and not any(wiring.constant(name) for name in node.input):
            taken = all(_source(wiring, name) in coded for name in node.input)
        if taken:
            end = _end(wiring, node)
            if end not in wiring.outputs:
                coded[end] = None
    return tuple(coded)


def source(graph: Graph, name: str) -> str:
    """The tensor that `name` is a view of, or the greatest of each window of."""
    return _source(Wiring(graph), name)


def _source(wiring: Wiring, name: str) -> str:
    while (node := wiring.made_by(name, *PASSES)) is not None:
        name = node.input[0]
    return name


def _end(wiring: Wiring, node: Any) -> str:
    """The output of `node`, or of the bound that alone follows it."""
    output = str(node.output[0])
    after = wiring.only_reader(output)
    if after is not None and after.op_type in BOUNDS and after.input[0] == output:
        return str(after.output[0])
    return output
