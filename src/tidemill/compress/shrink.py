"""Takes units of a channel group out of a graph: tensors become smaller, not only zero; runs where graphs do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tidemill.compress.groups import ChannelGroup, Resize
from tidemill.compress.layers import Layer
from tidemill.core.tensor import Array

if TYPE_CHECKING:
    from tidemill.compress.graph import Graph


def remove(graph: Graph, group: ChannelGroup, keep: Array, consumer_weights: Mapping[str, Array] | None = None) -> None:
    """Leave the units `keep` (indices, at least one) of `group`, in ascending order.

    `consumer_weights` are, by layer name, [out, columns left] for consumers that shall have others than their own. The
    layers' shapes, and the groups that share layers with this one, are to be found anew afterwards.
    """
    keep = np.unique(np.asarray(keep, np.intp))
    if not len(keep) or keep[0] < 0 or keep[-1] >= group.size:
        raise ValueError(f"{group.name} has units 0 to {group.size - 1}; at least one of them must stay, got {keep}")
    given = consumer_weights or {}
    # Consumers first: a layer within a residual path is both, and its new weights have all their rows.
    for member in group.consumers:
        columns = member.places[keep].ravel()
        weight = graph.weight(member.layer)
        new = given.get(member.layer.name)
        new = weight[:, columns] if new is None else np.asarray(new, np.float32)
        if new.shape != (len(weight), len(columns)):
            raise ValueError(f"{member.layer.name} is left {len(weight)} x {len(columns)}, its weights are {new.shape}")
        _store(graph, member.layer, new)
    for member in group.producers:
        rows = member.places[keep].ravel()
        _store(graph, member.layer, graph.weight(member.layer)[rows])
        if member.layer.bias is not None and not member.layer.add:
            _slice(graph, member.layer.name, 2, -1, rows, wide=len(member.places.ravel()))
    for other in group.others:
        _slice(graph, other.node, other.at, other.axis, other.places[keep].ravel())
    for name in group.depthwise:
        for attribute in graph.node(name).attribute:
            if attribute.name == "group":
                attribute.i = len(keep)
    for resize in group.resizes:
        _resize(graph, resize, len(keep))
    graph.drop_unused()


def _store(graph: Graph, layer: Layer, weight: Array) -> None:
    """`weight` [out, in] of any size in the layer's own storage."""
    stored = weight if layer.out_major else weight.T
    if layer.op == "Conv":
        kernel = (graph.shape(layer.weight) or ())[2:]
        stored = stored.reshape(len(weight), -1, *kernel)
    _set(graph, graph.node(layer.name), layer.operand, np.ascontiguousarray(stored, np.float32))


def _slice(graph: Graph, node: str, at: int, axis: int, places: Array, wide: int = 0) -> None:
    reader = graph.node(node)
    array = graph.array(reader.input[at])
    if wide and (not array.ndim or array.shape[axis] != wide):
        return  # one value for all channels
    _set(graph, reader, at, np.ascontiguousarray(np.take(array, places, axis=axis)))


def _set(graph: Graph, node: Any, at: int, array: Array) -> None:
    """Give `node` another constant; others that read the same keep theirs."""
    name = node.input[at]
    uses = sum(list(reader.input).count(name) or 1 for reader in graph.consumers(name))
    if uses > 1 or any(each.name == name for each in graph.model.graph.output):
        name = graph.fresh(f"{name}_left")
        node.input[at] = name
    graph.put(name, array)


def _resize(graph: Graph, resize: Resize, units: int) -> None:
    node = graph.node(resize.node)
    name = node.input[1]
    if graph.shape(name) is not None:
        shape = graph.array(name).copy()
        shape[resize.entry] = units * resize.per_unit
        _set(graph, node, 1, shape)
        return
    # A shape that is put together as the model runs: this Reshape gets a Concat of its own.
    old = graph.maker(name)
    if old is None:
        raise ValueError(f"the shape of {resize.node} comes from nowhere")
    concat = onnx.NodeProto.FromString(old.SerializeToString())
    number = graph.fresh(f"{resize.node}.side")
    graph.put(number, np.array([units * resize.per_unit], np.int64))
    concat.input[resize.entry] = number
    concat.name = graph.fresh(f"{resize.node}.shape")
    concat.output[0] = concat.name
    own = onnx.NodeProto.FromString(node.SerializeToString())
    own.input[1] = concat.name
    graph.replace({node.name: [concat, own]})
