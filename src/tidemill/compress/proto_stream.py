"""Writes an ONNX model whose big tensors lie beside it as arrays, without a second copy of them; runs where graphs do.

The bytes are those of any ONNX file, the fields of a graph in another order, which protobuf allows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx

from tidemill.core.errors import DiskFull
from tidemill.core.tensor import Array

SINGLE_FILE_BYTES_MAX = 2**31 - 1
ALIGNMENT = 4096
"""Of tensors in an external file, so that engines can map them."""
# Field numbers of onnx.proto, with the wire type for bytes and messages.
_MODEL_GRAPH = (7 << 3) | 2
_GRAPH_INITIALIZER = (5 << 3) | 2
_TENSOR_RAW_DATA = (9 << 3) | 2


def chunks(model: Any, arrays: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The model's bytes, piece by piece, with `arrays` as initializers of its graph."""
    graph = model.graph.SerializeToString(deterministic=True)
    before, after = onnx.ModelProto(), onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _set(before if field.number < onnx.ModelProto.GRAPH_FIELD_NUMBER else after, field, value)
    heads = {name: _head(name, array) for name, array in arrays.items()}
    each = {name: len(heads[name]) + array.nbytes for name, array in arrays.items()}
    body = len(graph) + sum(1 + len(_varint(size)) + size for size in each.values())
    yield before.SerializeToString(deterministic=True)
    yield bytes((_MODEL_GRAPH,)) + _varint(body)
    yield graph
    for name, array in arrays.items():
        yield bytes((_GRAPH_INITIALIZER,)) + _varint(each[name])
        yield heads[name]
        yield _bytes(array)
    # Behind the graph, where other writers have them: OpenVINO does not know a file for ONNX that names two sets of
    # operators before it.
    yield after.SerializeToString(deterministic=True)


def size_bytes(model: Any, arrays: Mapping[str, Array]) -> int:
    """About how long the file will be; exact but for a few bytes a tensor."""
    return int(model.ByteSize()) + sum(array.nbytes + 64 for array in arrays.values())


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _head(name: str, array: Array) -> bytes:
    head = onnx.TensorProto(
        name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    ).SerializeToString(deterministic=True)
    return bytes(head + bytes((_TENSOR_RAW_DATA,)) + _varint(array.nbytes))


def _set(message: Any, field: Any, value: Any) -> None:
    there = getattr(message, field.name)
    if hasattr(there, "extend"):
        there.extend(value)
    elif hasattr(there, "CopyFrom"):
        there.CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def external(model: Any, arrays: Mapping[str, Array], file: IO[bytes], location: str) -> Any:
    """`model` with `arrays` as initializers whose bytes are written to `file`, which will lie at `location` beside."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for name, array in arrays.items():
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        tensor = whole.graph.initializer.add(
            name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", file.tell()), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        file.write(_bytes(array))
    return whole


@contextmanager
def published(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block ends well, and is gone otherwise. Raises `DiskFull`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(
                f"there is no room left to write {path}; nothing was published: make room, and run the same "
                "command again"
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
