"""V2's raw strings, each behind its length in four little-endian bytes; pure, used over REST and over gRPC."""

from __future__ import annotations

import struct

import numpy as np

from tidemill.core.errors import WrongShape
from tidemill.core.tensor import Array

LENGTH = struct.Struct("<I")


def split(name: str, count: int, raw: bytes | memoryview) -> Array:
    """`count` strings of input `name`, as bytes objects [count]. Raises `WrongShape` unless `raw` holds just them."""
    end = len(raw)
    if count * LENGTH.size > end:
        raise WrongShape(
            f"input {name!r} has {end} bytes, too few for {count} strings, each behind a length of {LENGTH.size} bytes"
        )
    values = np.empty(count, object)
    at = 0
    for index in range(count):
        start = at + LENGTH.size
        at = start + LENGTH.unpack_from(raw, at)[0] if start <= end else start
        if at > end:
            raise WrongShape(f"input {name!r}: string {index} of {count} reaches beyond the {end} bytes that came")
        values[index] = bytes(raw[start:at])
    if at != end:
        raise WrongShape(f"input {name!r} has {end - at} bytes after its {count} strings")
    return values


def pieces(array: Array) -> list[bytes]:
    """The counterpart of `split`: lengths and strings of `array` in turn, to be joined."""
    parts: list[bytes] = []
    for value in array.ravel():
        parts += (LENGTH.pack(len(value)), value)
    return parts
