"""TensorFlow's TFRecord files, record by record; read by the owner and the command line.

A record is its length in eight bytes, a checksum of those, the data, and a checksum of that; all little-endian. The
checksum is CRC-32C, rotated and shifted by a constant, so that data which holds checksums does not fool it.
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tidemill.core.errors import RefusedModel
from tidemill.repository.crc32c import crc32c

HEAD = struct.Struct("<QI")
FOOT = struct.Struct("<I")
MASK_DELTA = 0xA282EAD8


def masked(data: bytes) -> int:
    """The checksum as it stands in a file."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """`data` as a record."""
    length = struct.pack("<Q", len(data))
    return HEAD.pack(len(data), masked(length)) + data + FOOT.pack(masked(data))


def records(path: Path, bytes_max: int) -> Iterator[bytes]:
    """The records of the file at `path`, one in memory at a time.

    Raises `RefusedModel` for what is no TFRecord file, for one that is cut short or changed, and for a record of more
    than `bytes_max`.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while (data := _next(file, f"{path}: record {number + 1}", bytes_max)) is not None:
                yield data
                number += 1
    except OSError as error:
        raise RefusedModel(f"{path} cannot be read: {error}") from error


def _next(file: BinaryIO, where: str, bytes_max: int) -> bytes | None:
    head = file.read(HEAD.size)
    if not head:
        return None
    if len(head) < HEAD.size:
        raise RefusedModel(f"{where} is cut short; is this an uncompressed TFRecord file?")
    length, crc = HEAD.unpack(head)
    if masked(head[:8]) != crc:
        raise RefusedModel(f"{where}: its length has another checksum; is this an uncompressed TFRecord file?")
    if length > bytes_max:
        raise RefusedModel(f"{where} has {length} bytes, the most allowed is {bytes_max} (--body-bytes-max)")
    data, foot = file.read(length), file.read(FOOT.size)
    if len(foot) < FOOT.size:
        raise RefusedModel(f"{where} is cut short: of its {length} bytes and their checksum, not all are there")
    if masked(data) != FOOT.unpack(foot)[0]:
        raise RefusedModel(f"{where}: its data have another checksum; the file is damaged")
    return data
