"""Holds an ONNX file against what it claims before an engine opens it; used by the owner and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tidemill.core.errors import RefusedModel
from tidemill.core.tensor import Signature, TensorSpec

DATATYPES = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.STRING: "BYTES",
}
IN_MEMORY = "*/"
"""With this onnxruntime marks data that lies at an address of its own process."""


BY_VALUE = frozenset(
    (
        *("Loop", "Scan", "If", "Range", "Tile", "ConstantOfShape", "Expand", "NonZero", "Resize", "Upsample", "Pad"),
        *("OneHot", "Compress", "Unique", "TopK", "NonMaxSuppression", "RandomNormal", "RandomUniform", "Multinomial"),
        *("StringConcat", "RegexFullMatch", "StringSplit"),
    )
)
"""Operators whose work, or whose output's size, values of the inputs may decide."""


def check(path: Path) -> tuple[int, bool]:
    """Bytes of the model with its external data, and whether its time depends on the shapes of its inputs alone.

    Raises `RefusedModel` for a file that is no ONNX model, and for external data that is missing, too short, or outside
    the model's folder.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise RefusedModel(f"{path} is not an ONNX model, or is cut short: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise RefusedModel(f"{path} is not an ONNX model: it has no graph (size {path.stat().st_size} bytes)")
    files: set[Path] = {path}
    for tensor in _all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            files.add(_external(path, tensor))
    return sum(file.stat().st_size for file in files), not any(op in BY_VALUE for op in _operators(model))


def signature(path: Path) -> Signature | None:
    """What the file says that it takes and gives; None where it does not say it of each. Raises `RefusedModel`."""
    try:
        graph = onnx.load(path, format="protobuf", load_external_data=False).graph
    except (DecodeError, OSError) as error:
        raise RefusedModel(f"{path} is not an ONNX model, or is cut short: {error}") from error
    given = {tensor.name for tensor in graph.initializer}
    inputs = [_spec(each) for each in graph.input if each.name not in given]
    outputs = [_spec(each) for each in graph.output]
    if None in inputs or None in outputs:
        return None
    return Signature(tuple(filter(None, inputs)), tuple(filter(None, outputs)))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec | None:
    tensor = value.type.tensor_type
    datatype = DATATYPES.get(tensor.elem_type)
    if datatype is None:
        return None
    if not tensor.HasField("shape"):
        return TensorSpec(value.name, datatype, None)
    sides = (side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)
    return TensorSpec(value.name, datatype, tuple(max(side, -1) for side in sides))


def _operators(model: onnx.ModelProto) -> Iterator[str]:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        yield node.op_type
        for attribute in node.attribute:
            nodes.extend(attribute.g.node)
            for graph in attribute.graphs:
                nodes.extend(graph.node)


def _external(path: Path, tensor: onnx.TensorProto) -> Path:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    try:
        file: Path = (folder / location).resolve()
        there = file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name; a NUL in it; a circle of links
        raise RefusedModel(f"{path}: the data of {tensor.name!r} is said to be at {location!r}: {error}") from error
    inside = file.is_relative_to(folder) and not Path(location).is_absolute()
    if not location or location.startswith(IN_MEMORY) or not inside:
        raise RefusedModel(
            f"{path}: the data of {tensor.name!r} is said to be at {location!r}, outside the model's folder; refused"
        )
    if not there:
        raise RefusedModel(f"{path}: the data of {tensor.name!r} is missing: there is no file {location!r} beside it")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError as error:
        raise RefusedModel(f"{path}: the data of {tensor.name!r} has a bad offset or length: {error}") from error
    size = file.stat().st_size
    if offset < 0 or length < 0 or offset + length > size:
        raise RefusedModel(
            f"{path}: the data of {tensor.name!r} is {length} bytes at {offset} of {location!r}, which has only {size}"
        )
    return file


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_attributes(node.attribute)
    for training in model.training_info:
        yield from _tensors(training.initialization)
        yield from _tensors(training.algorithm)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors(graph)
