"""Reads the safetensors format, version 0.3: a length, a JSON header, the values; pure, any process."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from tidemill.core.errors import FetchFailed
from tidemill.core.tensor import DTYPES, Array

HEADER_BYTES_MAX = 2**24

_DATATYPES = {
    "BOOL": "BOOL", "U8": "UINT8", "U16": "UINT16", "U32": "UINT32", "U64": "UINT64", "I8": "INT8", "I16": "INT16",
    "I32": "INT32", "I64": "INT64", "F16": "FP16", "BF16": "BF16", "F32": "FP32", "F64": "FP64",
}  # fmt: skip


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def tensors(data: bytes) -> dict[str, Array]:
    """Every tensor by its name, read-only views into `data`. Raises `FetchFailed` for what is not this format."""
    if len(data) < 8:
        raise FetchFailed(f"{len(data)} bytes are no safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER_BYTES_MAX, len(data) - 8):
        raise FetchFailed(f"a safetensors file of {len(data)} bytes tells of a header of {length}")
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FetchFailed(f"the header of a safetensors file is not understood: {error}") from error
    values = memoryview(data)[8 + length :]
    return {name: _tensor(name, entry, values) for name, entry in entries.items()}


def _tensor(name: str, entry: _Entry, values: memoryview) -> Array:
    if entry.dtype not in _DATATYPES:
        raise FetchFailed(f"tensor {name!r} has the datatype {entry.dtype!r}; known are {', '.join(_DATATYPES)}")
    dtype = DTYPES[_DATATYPES[entry.dtype]]
    start, end = entry.data_offsets
    size_bytes = math.prod(entry.shape) * dtype.itemsize
    if min(entry.shape, default=0) < 0 or not 0 <= start <= end <= len(values) or end - start != size_bytes:
        raise FetchFailed(
            f"tensor {name!r} of shape {list(entry.shape)} takes {size_bytes} bytes;"
            f" the header gives it {start} to {end} of {len(values)}"
        )
    return np.frombuffer(values[start:end], dtype).reshape(entry.shape)
