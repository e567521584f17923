"""Reads the signature of a TensorFlow SavedModel without TensorFlow; used by the owner and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tidemill.core.errors import RefusedModel
from tidemill.core.schemas import message
from tidemill.core.schemas.datatypes import TF_DATATYPES
from tidemill.core.tensor import Signature, TensorSpec

SERVING_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"
PREDICT = "tensorflow/serving/predict"
"""What a signature without a method is for."""


def signature(folder: Path, wanted: str | None = None) -> Signature:
    """What the SavedModel declares under `wanted`, as `choose` has it. Raises `RefusedModel`."""
    path = folder / "saved_model.pb"
    try:
        saved = message("tensorflow.SavedModel").FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise RefusedModel(f"{path} is not a SavedModel, or is cut short: {error}") from error
    graphs = [graph for graph in saved.meta_graphs if SERVING_TAG in graph.meta_info_def.tags] or list(
        saved.meta_graphs
    )
    if not graphs:
        raise RefusedModel(f"{path} is not a SavedModel: it holds no graph")
    definitions = graphs[0].signature_def
    name = choose(folder, definitions, wanted)
    return specified(path, name, definitions[name])


def specified(path: Path, name: str, definition: Any) -> Signature:
    """What the `SignatureDef` under `name` says. Raises `RefusedModel` for what is no dense tensor of a type that is
    served."""
    inputs, outputs = _specs(path, definition.inputs), _specs(path, definition.outputs)
    return Signature(inputs, outputs, name, definition.method_name or PREDICT)


def choose(folder: Path, definitions: Mapping[str, Any], wanted: str | None = None) -> str:
    """The signature that is served: `wanted`, else `serving_default`, else the only one. `definitions` are
    `SignatureDef`s by name. Raises `RefusedModel`."""
    found = [name for name, each in definitions.items() if not name.startswith("__") and each.outputs]
    name = wanted or (found[0] if len(found) == 1 else DEFAULT_SIGNATURE)
    if name not in found:
        raise RefusedModel(f"{folder} has no signature {name!r}; it has {', '.join(sorted(found)) or 'none'}")
    return name


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
