"""CRC-32C (Castagnoli) of many bytes at once, without a library; pure, used where files of records are read.

Python takes a byte at a time, which is 100 ms a megabyte. So the bytes are laid in rows, all rows go on together, a
byte at a step, and their sums are joined two by two: appending zeros to a message is a linear map of its sum, a matrix
of 32 columns. RFC 3720, appendix B.4, has values to check it by.
"""

from __future__ import annotations

import numpy as np

from tidemill.core.tensor import Array

POLYNOMIAL = 0x82F63B78
ROW = 256
"""Bytes of a row."""
FEW = 32768
"""So few bytes are not worth rows."""


def _table() -> Array:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ POLYNOMIAL, values >> 1).astype(np.uint32)
    return values


TABLE = _table()
NUMBERS: list[int] = TABLE.tolist()


def crc32c(data: bytes) -> int:
    """The sum as other programs print it: begun with ones, and inverted at its end."""
    if len(data) < FEW:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = NUMBERS[(crc ^ byte) & 0xFF] ^ crc >> 8
        return crc ^ 0xFFFFFFFF
    count = 1 << (-(-len(data) // ROW) - 1).bit_length()
    rows = np.zeros(count * ROW, np.uint8)
    rows[-len(data) :] = np.frombuffer(data, np.uint8)  # zeros before a message change nothing of a sum begun with 0,
    first = len(rows) - len(data)
    rows[first : first + 4] ^= 0xFF  # and to begin with ones is to invert the first four bytes
    sums = _advanced(np.zeros(count, np.uint32), rows.reshape(count, ROW))
    step = _advanced(np.uint32(1) << np.arange(32, dtype=np.uint32), np.zeros((32, ROW), np.uint8))
    while len(sums) > 1:
        sums = _applied(step, sums[0::2]) ^ sums[1::2]
        step = _applied(step, step)
    return int(sums[0]) ^ 0xFFFFFFFF


def _advanced(sums: Array, rows: Array) -> Array:
    """Each of `sums` after the bytes of its row."""
    for column in np.ascontiguousarray(rows.T):
        sums = TABLE[(sums ^ column) & 0xFF] ^ sums >> 8
    return sums


def _applied(columns: Array, sums: Array) -> Array:
    """The matrix of `columns` times each of `sums`, over the field of two."""
    found = np.zeros_like(sums)
    for bit, column in enumerate(columns):
        found ^= (sums >> np.uint32(bit) & np.uint32(1)) * column
    return found
