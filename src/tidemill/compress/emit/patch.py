"""New nodes and constants in the place of one layer's node; runs where graphs do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Emission:
    """How layers are written.

    `accuracy_level` is MatMulNBits' own: 4 lets onnxruntime round the layer's input to 8 bits, block by block; 1 keeps
    float32, for which it has a kernel for 4 bits only, and decodes the whole weight in each call for 2 and 8.
    `fold`: what is narrower on disk than in any kernel is widened while onnxruntime loads the model; OpenVINO cannot
    read such layers. Off, it is stored as wide as it runs, and both read it.
    """

    accuracy_level: int = 4
    fold: bool = True


class Patch:
    """Collects what replaces the node of `layer`; nothing in the graph changes its meaning before `apply`."""

    def __init__(self, graph: Graph, layer: Layer) -> None:
        self.graph = graph
        self.layer = layer
        self.old = graph.node(layer.name)
        self.output = self.old.output[0]  # not the layer's own, where a bias has been added behind it
        self.nodes: list[Any] = []
        self._taken: set[str] = set()

    def need(self, opset: int, what: str) -> None:
        """Raises `RefusedLayer` where the model's opset is older."""
        if self.graph.opset() < opset:
            raise RefusedLayer(
                f"layer {self.layer.name!r}: {what} needs opset {opset}, the model is of opset {self.graph.opset()}; "
                "export it anew, or convert it with onnx.version_converter"
            )

    def constant(self, what: str, array: Array, shared: bool = False) -> str:
        """An initializer's name. The same values under the same name are kept once: layers that share a weight share
        its codes, and `shared` constants (small tables) serve all layers."""
        stem = f"tidemill.{what}" if shared else f"{self.layer.weight}.{what}"
        name = stem
        held = self.graph.array_or_none(name)
        if held is not None:
            if held.dtype == array.dtype and held.shape == array.shape and np.array_equal(held, array):
                return name
            name = self.graph.fresh(stem)
        elif self.graph.fresh(stem) != stem:
            name = self.graph.fresh(stem)
        self.graph.put(name, array)
        return name

    def add(self, op: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """A node of one output, whose name is returned; `out` names the output."""
        if domain:
            self.graph.use_domain(domain)
        name = self._fresh(f"{self.layer.name}.{op}")
        out = out or self._fresh(f"{self.layer.output}.{op}")
        node = helper.make_node(op, list(inputs), [out], name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return out

    def add_many(self, op: str, inputs: list[str], outputs: int) -> list[str]:
        names = [self._fresh(f"{self.layer.output}.{op}.{at}") for at in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=self._fresh(f"{self.layer.name}.{op}")))
        return names

    def keep_old(self, inputs: list[str]) -> None:
        """The layer's own node, reading other tensors."""
        node = type(self.old).FromString(self.old.SerializeToString())
        del node.input[:]
        node.input.extend(inputs)
        self.nodes.append(node)

    def apply(self) -> None:
        """The last node keeps the layer's own name, by which it is found again."""
        self.nodes[-1].name = self.layer.name
        self.graph.replace({self.layer.name: self.nodes})
        self.graph.drop_unused()

    def _fresh(self, stem: str) -> str:
        name, count = self.graph.fresh(stem), 1
        while name in self._taken:
            count += 1
            name = self.graph.fresh(f"{stem}_{count}")
        self._taken.add(name)
        return name
