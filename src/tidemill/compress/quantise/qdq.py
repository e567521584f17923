"""Writes quantised tensors and layers as QuantizeLinear and DequantizeLinear; runs where graphs do.

Such a graph is standard ONNX: each engine replaces the patterns by its int8 kernels. On x86 those want uint8 times
int8: uint8 activations, and int8 with a zero point of 0 for weights and for the right side of a product of two
activations. (A Gemm of int8 with int8 is twice as slow in onnxruntime as one of float32, on AVX512-VNNI.) OpenVINO
multiplies two activations in int8 only where neither has a zero point, so a query is int8 as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import onnx

from tidemill.compress.forms import Activation
from tidemill.compress.graph import Graph
from tidemill.core.tensor import Array

Edge = tuple[str, int]
"""(node, which of its inputs)."""
OPSET_MIN: Final = 13
"""The first in which a DequantizeLinear has a scale per channel."""
_INT32_MAX: Final = 2**31 - 128


class Writer:
    """Edits one graph in place. Edges and nodes are named, so that edits may follow one another in any order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._taken = {name for node in graph.nodes for name in (node.name, *node.input, *node.output)}
        self._taken |= set(graph.arrays) | {
            each.name for each in (*graph.model.graph.initializer, *graph.model.graph.input)
        }
        self._before: dict[str, list[Any]] = {}
        self._weights: dict[tuple[str, int | None], str] = {}

    def name(self, stem: str) -> str:
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def put(self, stem: str, array: Array) -> str:
        name = self.name(stem)
        self.graph.put(name, array)
        return name

    def input(self, edge: Edge) -> str:
        return str(self._nodes[edge[0]].input[edge[1]])

    def activation(self, tensor: str, edges: Iterable[Edge], grid: Activation, signed: bool) -> None:
        """`edges` read `tensor` through one pair of Quantize- and DequantizeLinear from now on."""
        edges = list(edges)
        scale = self.put(f"{tensor}_scale", np.array(grid.scale, np.float32))
        dtype = np.int8 if signed else np.uint8
        zero = self.put(f"{tensor}_zero", np.array(0 if signed else grid.zero_point, dtype))
        pair: list[Any] = []
        values = self._values(pair, self._codes(pair, tensor, scale, zero), scale, zero)
        self._place(pair, [edge[0] for edge in edges])
        for node, at in edges:
            self._nodes[node].input[at] = values

    def weight(self, edge: Edge, codes: Array, scales: Array, axis: int | None) -> None:
        """`codes` int8 in the initializer's own layout; `scales` along `axis`, or one number where that is None."""
        stem = self.input(edge)
        known = self._weights.get((stem, axis))
        if known is None:
            known = self._dequantised(stem, codes, scales, axis, edge[0])
            self._weights[stem, axis] = known
        self._nodes[edge[0]].input[edge[1]] = known

    def bias(self, node: str, at: int, bias: Array, scales: Array) -> Array:
        """int32 in steps of `scales` [out], as int8 kernels add it; gives what it became, in float32."""
        codes = np.rint(bias.astype(np.float64) / scales)
        codes = np.clip(codes, -_INT32_MAX, _INT32_MAX).astype(np.int32)
        made = self._dequantised(f"{node}_bias", codes, scales.astype(np.float32), 0, node, zero=False)
        target = self._nodes[node]
        if len(target.input) > at:
            target.input[at] = made
        else:
            target.input.append(made)
        return np.asarray(codes * scales.astype(np.float64), np.float32)

    def unbiased(self, node: str, at: int) -> None:
        """Take the bias away; whoever reads the node's output adds it."""
        del self._nodes[node].input[at:]

    def constant(self, node: str, before: str, array: Array) -> None:
        """`node` reads `array` instead of the constant `before`."""
        target = self._nodes[node]
        target.input[list(target.input).index(before)] = self.put(before, array)

    def moved(
        self, node: str, at: int, moves: Sequence[str], grid: Activation, signed: bool, bias: Array | None = None
    ) -> None:
        """Input `at` of `node` becomes codes before `moves` (behind the first of them, with `bias` added there, where
        one is given): a fourth of the bytes are moved about.

        Signed codes get a pair around each move: one pair that stays open across them keeps OpenVINO from its int8
        products, and onnxruntime, left to close it, writes what it then refuses to load. With a zero point OpenVINO
        computes each such pair, so there it is one."""
        moves = list(moves)
        given = str(self._nodes[moves[0]].input[0])
        new: list[Any] = []
        if bias is not None:
            given = str(self._nodes[moves.pop(0)].output[0])
            whole = self.name(f"{given}_biased")
            new.append(onnx.helper.make_node("Add", [given, self.put(f"{whole}_bias", bias)], [whole], name=whole))
            given = whole
        scale = self.put(f"{given}_scale", np.array(grid.scale, np.float32))
        zero = self.put(f"{given}_zero", np.array(0, np.int8) if signed else np.array(grid.zero_point, np.uint8))
        codes = self._codes(new, given, scale, zero)
        for name in moves:
            copy = onnx.NodeProto.FromString(self._nodes[name].SerializeToString())
            copy.input[0] = self._values(new, codes, scale, zero) if signed else codes
            copy.output[0] = copy.name = codes = self.name(f"{copy.output[0]}_moved")
            new.append(copy)
            if signed:
                codes = self._codes(new, codes, scale, zero)
        self._nodes[node].input[at] = self._values(new, codes, scale, zero)
        self._place(new, [node])

    def _codes(self, nodes: list[Any], given: str, scale: str, zero: str) -> str:
        codes = self.name(f"{given}_codes")
        nodes.append(onnx.helper.make_node("QuantizeLinear", [given, scale, zero], [codes], name=codes))
        return codes

    def _values(self, nodes: list[Any], codes: str, scale: str, zero: str) -> str:
        values = self.name(f"{codes.removesuffix('_codes')}_quantised")
        nodes.append(onnx.helper.make_node("DequantizeLinear", [codes, scale, zero], [values], name=values))
        return values

    def _dequantised(
        self, stem: str, codes: Array, scales: Array, axis: int | None, reader: str, zero: bool = True
    ) -> str:
        scales = np.asarray(scales, np.float32) if axis is not None else np.array(scales, np.float32).reshape(())
        values = self.name(f"{stem}_quantised")
        inputs = [self.put(f"{stem}_codes", codes), self.put(f"{stem}_scale", scales)]
        if zero:
            inputs.append(self.put(f"{stem}_zero", np.zeros(scales.shape, codes.dtype)))
        node = onnx.helper.make_node(
            "DequantizeLinear", inputs, [values], name=values, **({} if axis is None else {"axis": axis})
        )
        self._place([node], [reader])
        return values

    def _place(self, nodes: list[Any], readers: Iterable[str]) -> None:
        order = {node.name: at for at, node in enumerate(self.graph.nodes)}
        first = min(readers, key=lambda name: order[name])
        self._before.setdefault(first, []).extend(nodes)

    def finish(self) -> None:
        """Put the new nodes in front of the first that reads them, and forget what nobody reads any more."""
        changes = {}
        for name, before in self._before.items():
            node = self._nodes[name]
            changes[name] = [*before, onnx.NodeProto.FromString(node.SerializeToString())]
        self.graph.replace(changes)
        self._before.clear()
        self._nodes = {node.name: node for node in self.graph.nodes}
        self.graph.drop_unused()
