"""An ONNX model as something to take apart and change: its layers, their weights, and runs of parts of it.

Runs in the command line's process; a graph belongs to one thread.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor

from tidemill.compress import cut as cutting
from tidemill.compress import layers as finding
from tidemill.compress import normalise, proto_stream
from tidemill.compress.layers import Layer, LeftAlone
from tidemill.core.errors import RefusedModel
from tidemill.core.tensor import Array
from tidemill.engine.onnx import ORT_FAILURES, first_line
from tidemill.repository import onnx_files

if TYPE_CHECKING:
    from tidemill.compress.groups import ChannelGroup

OPSET_MIN = 7
INLINE_BYTES_MAX = 1024
"""Initializers up to this size stay in `model`, where shapes and axes are looked for."""
PLAIN = frozenset(np.dtype(kind) for kind in ("f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"))


class Graph:
    """One model in memory. `model` holds everything but its big initializers, which are in `arrays` by name, in order.

    Arrays are shared between copies and never written to: change one by `put`. Nodes have unique names; edit them
    through `replace`, or in place.
    """

    def __init__(self, model: Any, arrays: dict[str, Array]) -> None:
        self.model = model
        self.arrays = arrays

    # -- files ---------------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path | str) -> Graph:
        """Raises `RefusedModel` for what is no ONNX model, is older than opset 7, or has weights that are NaN."""
        path = Path(path)
        onnx_files.check(path)
        try:
            model = onnx.load(path, format="protobuf", load_external_data=False)
        except (DecodeError, OSError) as error:
            raise RefusedModel(f"{path} cannot be read: {error}") from error
        return cls._adopt(model, path.parent, str(path))

    @classmethod
    def from_model(cls, model: Any, folder: Path | None = None) -> Graph:
        """`model` stays as it is. `folder` is where its external data lie."""
        own = onnx.ModelProto()
        own.CopyFrom(model)
        return cls._adopt(own, folder, "the model")

    @classmethod
    def _adopt(cls, model: Any, folder: Path | None, called: str) -> Graph:
        opset = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 0)
        if opset < OPSET_MIN:
            raise RefusedModel(f"{called} is of opset {opset}; {OPSET_MIN} and later are compressed: export it anew")
        normalise.constants_to_initializers(model)
        normalise.name_nodes(model)
        graph = cls(model, {})
        graph._take_arrays(folder, called)
        del model.graph.value_info[:]  # what they say stops being true once layers change
        normalise.fold_constants(graph)
        normalise.plain_gemm(graph)
        graph.drop_unused()
        graph._refuse_nan(called)
        return graph

    def _take_arrays(self, folder: Path | None, called: str) -> None:
        kept = []
        for tensor in self.model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                try:
                    load_external_data_for_tensor(tensor, str(folder or "."))
                except (OSError, ValueError, onnx.checker.ValidationError) as error:
                    raise RefusedModel(f"{called}: the data of {tensor.name!r} cannot be read: {error}") from error
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
            array = _plain(tensor, called)
            if array is None or array.nbytes <= INLINE_BYTES_MAX:
                kept.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
            else:
                self.arrays[tensor.name] = array
            tensor.Clear()  # so that never more than one is there twice
        del self.model.graph.initializer[:]
        # A new message, because protobuf keeps what a message once held for as long as the message lives.
        self.model = onnx.ModelProto.FromString(self.model.SerializeToString())
        self.model.graph.initializer.extend(kept)

    def _refuse_nan(self, called: str) -> None:
        for layer in self.layers():
            for name in (layer.weight, layer.bias):
                array = None if name is None else self.array(name)
                if array is not None and not np.isfinite(array).all():
                    bad = int(array.size - np.isfinite(array).sum())
                    raise RefusedModel(
                        f"{called}: {name!r} of layer {layer.name!r} has {bad} of {array.size} values that are NaN or "
                        "infinite; the file is damaged or its training diverged: export it anew"
                    )

    def write(self, path: Path | str, external: bool | None = None) -> None:
        """`path` appears whole or not at all. Big tensors go to `path` + ".data" when the file would pass 2 GiB, or
        where `external` says so. Raises `DiskFull`."""
        path = Path(path)
        if external is None:
            external = self.size_bytes > proto_stream.SINGLE_FILE_BYTES_MAX
        if external:
            with proto_stream.published(path.with_name(path.name + ".data")) as file:
                model = proto_stream.external(self.model, self.arrays, file, path.name + ".data")
            pieces: Iterator[bytes | memoryview] = iter((model.SerializeToString(deterministic=True),))
        else:
            pieces = proto_stream.chunks(self.model, self.arrays)
        with proto_stream.published(path) as file:
            for piece in pieces:
                file.write(piece)

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return proto_stream.size_bytes(self.model, self.arrays)

    def to_model(self) -> Any:
        """Everything in one `onnx.ModelProto`, which has room for 2 GiB."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.model)
        whole.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in self.arrays.items())
        return whole

    def copy(self) -> Graph:
        """Costs little: arrays are shared."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Graph(model, dict(self.arrays))

    # -- layers --------------------------------------------------------------------------------------------------------

    def layers(self) -> list[Layer]:
        """In topological order."""
        return finding.find(self)[0]

    def left_alone(self) -> list[LeftAlone]:
        """(node, op, reason) of every other node with weights."""
        return finding.find(self)[1]

    def weight(self, layer: Layer) -> Array:
        """float32 [groups·out, in], whatever the storage."""
        array = self.array(layer.weight)
        array = array.reshape(len(array), -1) if layer.op == "Conv" else array
        return np.ascontiguousarray(array if layer.out_major else array.T)

    def bias(self, layer: Layer) -> Array | None:
        """float32 [groups·out]."""
        if layer.bias is None:
            return None
        given = self.array(layer.bias).ravel()
        return np.ascontiguousarray(np.broadcast_to(given, (layer.groups * layer.shape[0],)))

    def set_dense(self, layer: Layer, weight: Array, bias: Array | None = None) -> None:
        """`weight` and `bias` as `weight()` and `bias()` give them; layers that share the weight get it too. None
        leaves the bias."""
        before = self.array(layer.weight)
        stored = np.asarray(weight, np.float32)
        self.put(layer.weight, np.ascontiguousarray(stored if layer.out_major else stored.T).reshape(before.shape))
        if bias is not None:
            self.set_bias(layer, bias)

    def set_bias(self, layer: Layer, bias: Array) -> None:
        """Where the layer has none, one is added; where another node reads the same, the layer gets its own."""
        bias = np.asarray(bias, np.float32).ravel()
        if layer.op == "Gather":
            raise ValueError(f"an embedding has no bias: {layer.name}")
        node = self.node(layer.name)
        if layer.bias is not None:
            name = layer.bias if len(self.consumers(layer.bias)) == 1 else self.fresh(f"{layer.bias}_own")
            self.put(name, bias)
            reader, at = (node, 2) if not layer.add else (self.node(layer.add), None)
            if at is None:
                at = list(reader.input).index(layer.bias)
            reader.input[at] = name
            return
        name = self.fresh(f"{layer.name}.bias")
        if layer.op in {"Conv", "Gemm"}:
            self.put(name, bias)
            del node.input[2:]
            node.input.append(name)
            return
        self.put(name, bias if layer.operand == 1 else bias[:, None])
        inner = self.fresh(f"{layer.output}_unbiased")
        add = onnx.helper.make_node("Add", [inner, name], [layer.output], name=self.fresh(f"{layer.name}.add"))
        node.output[0] = inner
        self.replace({node.name: [onnx.NodeProto.FromString(node.SerializeToString()), add]})

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Any:
        return self.model.graph.node

    def node(self, name: str) -> Any:
        """Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"there is no node {name!r}")

    def maker(self, tensor: str) -> Any | None:
        """The node that gives `tensor`; None for inputs and constants."""
        return next((node for node in self.nodes if tensor in node.output), None)

    def consumers(self, tensor: str) -> list[Any]:
        """Nodes that read it, in their subgraphs too."""
        return [node for node in self.nodes if tensor in finding.reads(node)]

    def array(self, name: str) -> Array:
        """An initializer's values; not to be written to. Raises KeyError."""
        found = self.array_or_none(name)
        if found is None:
            raise KeyError(f"there is no initializer {name!r} of a plain type")
        return found

    def array_or_none(self, name: str) -> Array | None:
        held = self.arrays.get(name)
        if held is not None:
            return held
        tensor = self._inline(name)
        return None if tensor is None else _plain(tensor, "the model")

    def _inline(self, name: str) -> Any | None:
        return next((tensor for tensor in self.model.graph.initializer if tensor.name == name), None)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Of an initializer that no caller can override; None for any other tensor."""
        if any(each.name == name for each in self.model.graph.input):
            return None
        held = self.arrays.get(name)
        if held is not None:
            return tuple(held.shape)
        tensor = self._inline(name)
        return None if tensor is None else tuple(tensor.dims)

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """Of an initializer; None where numpy has no such type."""
        held = self.arrays.get(name)
        if held is not None:
            return held.dtype
        tensor = self._inline(name)
        array = None if tensor is None else _plain(tensor, "the model")
        return None if array is None else array.dtype

    def put(self, name: str, array: Array) -> None:
        """Add an initializer, or give it other values; any shape and plain type."""
        array = np.array(array, order="C", copy=None)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        if name not in self.arrays:
            self.drop(name)
        if array.nbytes > INLINE_BYTES_MAX and array.dtype in PLAIN:
            self.arrays[name] = array
        else:
            self.arrays.pop(name, None)
            self.model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))

    def drop(self, name: str) -> None:
        """Forget an initializer; nothing where there is none."""
        self.arrays.pop(name, None)
        for at, tensor in enumerate(self.model.graph.initializer):
            if tensor.name == name:
                del self.model.graph.initializer[at]
                return

    def drop_unused(self) -> None:
        """Forget nodes whose outputs nobody reads, and initializers that nobody reads."""
        alive = cutting.needed(self, [each.name for each in self.model.graph.output])
        if len(alive) < len(self.nodes):
            names = {node.name for node in alive}
            self.replace({node.name: [] for node in self.nodes if node.name not in names})
        read = {each.name for each in self.model.graph.output}.union(*(finding.reads(node) for node in self.nodes))
        for name in [name for name in self.arrays if name not in read]:
            del self.arrays[name]
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        if len(kept) < len(self.model.graph.initializer):
            kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
            del self.model.graph.initializer[:]
            self.model.graph.initializer.extend(kept)

    def replace(self, changes: Mapping[str, Sequence[Any]]) -> None:
        """Put other nodes (none: take it out) in the place of each named node. Node names must stay unique: `fresh`."""
        after: list[Any] = []
        for node in self.nodes:
            if node.name in changes:
                after.extend(changes[node.name])
            else:
                after.append(onnx.NodeProto.FromString(node.SerializeToString()))
        del self.nodes[:]
        self.nodes.extend(after)

    def fresh(self, stem: str) -> str:
        """`stem`, or with a number behind it: a name that no node and no tensor has."""
        taken = {node.name for node in self.nodes} | set(self.arrays)
        taken |= {name for node in self.nodes for name in (*node.input, *node.output)}
        taken |= {each.name for each in (*self.model.graph.initializer, *self.model.graph.input)}
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        return name

    def opset(self, domain: str = "") -> int:
        """0 where the model does not use it."""
        same = {"", "ai.onnx"} if domain in {"", "ai.onnx"} else {domain}
        return max((int(each.version) for each in self.model.opset_import if each.domain in same), default=0)

    def use_domain(self, domain: str, version: int = 1) -> None:
        """Declare operators of `domain`, such as "com.microsoft"."""
        if not self.opset(domain):
            self.model.opset_import.append(onnx.helper.make_opsetid(domain, version))

    # -- running -------------------------------------------------------------------------------------------------------

    def session(
        self, outputs: Sequence[str] | None = None, threads: int = 2, given: Mapping[str, np.dtype[Any]] | None = None
    ) -> ort.InferenceSession:
        """onnxruntime on the part that makes `outputs` (any tensors; None: the model's own), with nothing else in it.
        `given` tensors (name to dtype) become its inputs. Raises `RefusedModel`."""
        part, arrays = cutting.cut(self, outputs, given or {})
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A calibration run has batches of many shapes; arenas would keep the largest of each.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        try:
            with _loadable(part, arrays) as source:
                return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except ORT_FAILURES as error:
            raise RefusedModel(f"onnxruntime cannot run this model: {first_line(error)}") from error

    # -- coupled channels ----------------------------------------------------------------------------------------------

    def channel_groups(self) -> list[ChannelGroup]:
        """Channels that can only go together: see `groups.find`."""
        from tidemill.compress import groups

        found: list[ChannelGroup] = groups.find(self)
        return found

    def remove(self, group: ChannelGroup, keep: Array, consumer_weights: Mapping[str, Array] | None = None) -> None:
        """Leave only the units `keep` of `group`: see `shrink.remove`."""
        from tidemill.compress import shrink

        shrink.remove(self, group, keep, consumer_weights)


@contextlib.contextmanager
def _loadable(part: Any, arrays: Mapping[str, Array]) -> Iterator[bytes | str]:
    """What onnxruntime takes: bytes, or the name of a file that is there for as long as it loads."""
    if proto_stream.size_bytes(part, arrays) < proto_stream.SINGLE_FILE_BYTES_MAX:
        yield b"".join(proto_stream.chunks(part, arrays))
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        path = Path(folder, "part.onnx")
        Graph(part, dict(arrays)).write(path)
        yield os.fspath(path)


def _plain(tensor: Any, called: str) -> Array | None:
    """None for a type that numpy lacks."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if dtype not in PLAIN:
            return None
        array = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise RefusedModel(f"{called}: initializer {tensor.name!r} cannot be read: {error}") from error
    return np.array(array, dtype, order="C", copy=None)
