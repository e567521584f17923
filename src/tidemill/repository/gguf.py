"""What a GGUF file says of itself before its weights; read in the owner and in the child that generates.

Layout after the GGUF specification, version 3: magic, u32 version, u64 tensors, u64 pairs, then the pairs: key, u32
type, value. All little-endian. Nothing is allocated for what a length merely claims.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from tidemill.core.errors import RefusedModel

PAIRS_MAX: Final = 10_000
STRING_BYTES_MAX: Final = 2**20
ITEMS_MAX: Final = 2**21
"""Of one array: a vocabulary is the longest, and has some hundred thousand."""
_NUMBERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def read(path: Path) -> dict[str, Any]:
    """Key -> value of the metadata; arrays as their length alone. Raises `RefusedModel`."""
    try:
        with path.open("rb") as file:
            if _take(file, 4) != b"GGUF":
                raise RefusedModel(f"{path} is no GGUF file")
            version, _, pairs = struct.unpack("<IQQ", _take(file, 20))
            if version not in (2, 3):
                raise RefusedModel(f"{path} is GGUF of version {version}; versions 2 and 3 are read")
            if pairs > PAIRS_MAX:
                raise RefusedModel(f"{path} claims {pairs} facts about itself, at most {PAIRS_MAX} are read")
            return dict(_pair(file) for _ in range(pairs))
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise RefusedModel(f"{path} cannot be read as GGUF: {error}") from error


def _pair(file: BinaryIO) -> tuple[str, Any]:
    key = _string(file)
    (kind,) = struct.unpack("<I", _take(file, 4))
    return key, _value(file, kind)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        return _skip(file)
    return _number(file, kind)


def _number(file: BinaryIO, kind: int) -> Any:
    layout = _NUMBERS.get(kind)
    if layout is None:
        raise struct.error(f"a value of the unknown type {kind}")
    return struct.unpack(layout, _take(file, struct.calcsize(layout)))[0]


def _skip(file: BinaryIO) -> int:
    """Pass over an array; its length."""
    kind, items = struct.unpack("<IQ", _take(file, 12))
    if items > ITEMS_MAX:
        raise struct.error(f"an array of {items} items, at most {ITEMS_MAX} are read")
    if kind == _STRING:
        for _ in range(items):
            _string(file)
    elif kind in _NUMBERS:
        file.seek(items * struct.calcsize(_NUMBERS[kind]), 1)
    else:
        raise struct.error(f"an array of the type {kind}")
    return int(items)


def _string(file: BinaryIO) -> str:
    (size,) = struct.unpack("<Q", _take(file, 8))
    if size > STRING_BYTES_MAX:
        raise struct.error(f"a text of {size} bytes, at most {STRING_BYTES_MAX} are read")
    return _take(file, size).decode("utf-8", "replace")


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise struct.error("it ends too early")
    return data
