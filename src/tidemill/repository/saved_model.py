"""Reads the signature of a TensorFlow SavedModel without TensorFlow; used by the owner and the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf.message import DecodeError

from tidemill.core.errors import RefusedModel
from tidemill.core.schemas import message
from tidemill.core.schemas.datatypes import TF_DATATYPES
from tidemill.core.tensor import Signature, TensorSpec

FILE = "saved_model.pb"
SERVING_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"
PREDICT = "tensorflow/serving/predict"
"""What a signature without a method is for."""
CHANGE = ("Assign", "ResourceApply", "ResourceScatter", "ResourceSparseApply", "Scatter", "Mutable", "Stack", "Queue")
"""Beginnings of the names of operations that keep something for the next call; of scatters the old ones do."""


def signature(folder: Path, wanted: str | None = None) -> Signature:
    """What the SavedModel declares under `wanted`, as `choose` has it. Raises `RefusedModel`."""
    definitions = _served(folder, "tensorflow.SavedModel").signature_def
    name = choose(folder, definitions, wanted)
    return specified(folder / FILE, name, definitions[name], others(definitions, name))


@contextmanager
def as_default(folder: Path, name: str) -> Iterator[Path]:
    """Another folder with the same SavedModel, whose one signature `name` is called `serving_default` in it: for
    readers that know no other. It holds links to the model's files, and is gone on leaving. Raises `RefusedModel`."""
    graph = _served(folder, "tensorflow.SavedModel")
    if name not in graph.signature_def:
        raise RefusedModel(f"{folder} has no signature {name!r}")
    chosen = type(graph.signature_def[name])()
    chosen.CopyFrom(graph.signature_def[name])
    graph.signature_def.clear()
    graph.signature_def[DEFAULT_SIGNATURE].CopyFrom(chosen)
    with TemporaryDirectory(prefix="tidemill-") as made:
        shown = Path(made)
        for each in folder.iterdir():
            if each.name != FILE:
                (shown / each.name).symlink_to(each.resolve())
        saved = message("tensorflow.SavedModel")(saved_model_schema_version=1, meta_graphs=[graph])
        (shown / FILE).write_bytes(saved.SerializeToString())
        yield shown


def changes(folder: Path, wanted: str | None = None) -> bool:
    """Whether the signature `wanted` may change the model, as variables that are assigned do. Raises `RefusedModel`."""
    return any(each.startswith(CHANGE) or each.endswith(("Insert", "Import")) for each in operations(folder, wanted))


def operations(folder: Path, wanted: str | None = None) -> frozenset[str]:
    """The operations that the signature `wanted` is computed with, those of the functions that it calls among them.

    Reads every node of the file. Raises `RefusedModel`.
    """
    graph = _served(folder, "tensorflow.SavedGraphs")
    definition = graph.signature_def[choose(folder, graph.signature_def, wanted)]
    nodes = {node.name: node for node in graph.graph_def.node}
    functions = {each.signature.name: each.node_def for each in graph.graph_def.library.function}
    needed: dict[str, Any] = {}
    names = [_node(info.name) for info in definition.outputs.values()]
    while names:
        name = names.pop()
        if name in nodes and name not in needed:
            needed[name] = nodes[name]
            names += map(_node, nodes[name].input)
    waiting = list(needed.values())
    called: set[str] = set()
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        found.add(node.op)
        for value in node.attr.values():
            for name in (value.func.name, *(each.name for each in value.list.func)):
                if name in functions and name not in called:
                    called.add(name)
                    waiting += functions[name]  # a function holds what it needs and no more
    return frozenset(found)


def _node(tensor: str) -> str:
    """The name of the node that makes `tensor`, as inputs name it: `^node`, `node`, `node:1`, `node:output:1`."""
    return tensor.removeprefix("^").partition(":")[0]


def _served(folder: Path, kind: str) -> Any:
    """The graph that is meant for serving, else the first, of `saved_model.pb` read as `kind`. Raises
    `RefusedModel`."""
    path = folder / FILE
    try:
        saved = message(kind).FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise RefusedModel(f"{path} is not a SavedModel, or is cut short: {error}") from error
    graphs = [graph for graph in saved.meta_graphs if SERVING_TAG in graph.meta_info_def.tags] or list(
        saved.meta_graphs
    )
    if not graphs:
        raise RefusedModel(f"{path} is not a SavedModel: it holds no graph")
    return graphs[0]


def specified(path: Path, name: str, definition: Any, others: tuple[str, ...] = ()) -> Signature:
    """What the `SignatureDef` under `name` says; `others` are the names of those beside it. Raises `RefusedModel` for
    what is no dense tensor of a type that is served."""
    inputs, outputs = _specs(path, definition.inputs), _specs(path, definition.outputs)
    return Signature(inputs, outputs, name, definition.method_name or PREDICT, others)


def choose(folder: Path, definitions: Mapping[str, Any], wanted: str | None = None) -> str:
    """The signature that answers those who name none: `wanted`, else `serving_default`, else the only one.
    `definitions` are `SignatureDef`s by name. Raises `RefusedModel`."""
    found = _usable(definitions)
    name = wanted or (found[0] if len(found) == 1 else DEFAULT_SIGNATURE)
    if name not in found:
        raise RefusedModel(f"{folder} has no signature {name!r}; it has {', '.join(sorted(found)) or 'none'}")
    return name


def others(definitions: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The signatures beside `name` that could be served too."""
    return tuple(sorted(set(_usable(definitions)) - {name}))


def _usable(definitions: Mapping[str, Any]) -> list[str]:
    return [name for name, each in definitions.items() if not name.startswith("__") and each.outputs]


def _specs(path: Path, infos: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for name in sorted(infos):
        info = infos[name]
        if info.WhichOneof("encoding") != "name":
            raise RefusedModel(f"{path}: {name!r} is no dense tensor, and others are not served")
        datatype = TF_DATATYPES.get(info.dtype)
        if datatype is None:
            raise RefusedModel(f"{path}: {name!r} is of TensorFlow type {info.dtype}, which is not served")
        shape = None if info.tensor_shape.unknown_rank else tuple(max(side.size, -1) for side in info.tensor_shape.dim)
        specs.append(TensorSpec(name, datatype, shape))
    return tuple(specs)
