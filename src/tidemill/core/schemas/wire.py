"""The few bytes of the protobuf encoding that are quicker by hand than through a message; used where schemas are.

A packed field of floats lies in an encoded message as the bytes of the array itself, so one copy moves a tensor that
would otherwise travel element by element. Encodings of one message concatenate to their merge.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """`value`, which is not negative, in groups of seven bits, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def lead(number: int, size: int) -> bytes:
    """What stands before `size` bytes of field `number`."""
    if size < 0x80 and number < 16:
        return bytes((number << 3 | LENGTH, size))
    return varint(number << 3 | LENGTH) + varint(size)


def payload(encoded: bytes, number: int) -> memoryview | None:
    """The bytes of the first length-delimited field `number` of a message that protobuf has encoded, or None.

    Raises `ValueError` at a group, which only unknown fields still use: read the message itself then.
    """
    at, end = 0, len(encoded)
    while at < end:
        tag, at = _varint_at(encoded, at)
        kind = tag & 7
        if kind == LENGTH:
            size, at = _varint_at(encoded, at)
            if tag >> 3 == number:
                return memoryview(encoded)[at : at + size]
            at += size
        elif kind == VARINT:
            _, at = _varint_at(encoded, at)
        elif kind == FIXED32:
            at += 4
        elif kind == FIXED64:
            at += 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
    return None


def _varint_at(encoded: bytes, at: int) -> tuple[int, int]:
    value = encoded[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        group = encoded[at]
        at += 1
        value |= (group & 0x7F) << shift
        if group < 0x80:
            return value, at
        shift += 7
