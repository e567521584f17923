"""Reads the signature of a TensorFlow SavedModel without TensorFlow; used by the owner and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tidemill.core.errors import RefusedModel
from tidemill.core.schemas import message
from tidemill.core.schemas.datatypes import TF_DATATYPES
from tidemill.core.tensor import Signature, TensorSpec

SERVING_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"


def signature(folder: Path) -> Signature:
    """What the SavedModel declares under `serving_default`, or under its only signature. Raises `RefusedModel`."""
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
    found = {name: each for name, each in graphs[0].signature_def.items() if not name.startswith("__") and each.outputs}
    chosen = found.get(DEFAULT_SIGNATURE) or (next(iter(found.values())) if len(found) == 1 else None)
    if chosen is None:
        raise RefusedModel(
            f"{path} has no signature {DEFAULT_SIGNATURE!r}; it has {', '.join(sorted(found)) or 'none'}"
        )
    return Signature(_specs(path, chosen.inputs), _specs(path, chosen.outputs))


def _specs(path: Path, infos: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for name in sorted(infos):
        info = infos[name]
        datatype = TF_DATATYPES.get(info.dtype)
        if datatype is None:
            raise RefusedModel(f"{path}: {name!r} is of TensorFlow type {info.dtype}, which is not served")
        shape = None if info.tensor_shape.unknown_rank else tuple(max(side.size, -1) for side in info.tensor_shape.dim)
        specs.append(TensorSpec(name, datatype, shape))
    return tuple(specs)
