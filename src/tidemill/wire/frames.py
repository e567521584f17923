"""Frames between processes: a short head, a msgpack header, raw buffers; used at both ends of a link.

On the wire, little-endian, in multiples of 16 bytes so that numbers lie where the processor likes them:

    u8 version | u8 kind | u16 topic | u32 stream | u32 bytes of header | u32 bytes of payload
    header, padded | payload, padded

The padding is not in the counts. Nothing is allocated for what a head merely claims: a frame's bytes are kept as they
come, and a claim beyond the bound ends the link.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

from tidemill.core.errors import FrameTooLarge

VERSION: Final = 1
ALIGN: Final = 16
HEAD: Final = struct.Struct("<BBHIII")
JOINED_BYTES_MAX: Final = 64 * 1024
"""Up to here a frame is copied into one piece for the socket; the pieces of a larger one go as they are."""
PADS: Final = tuple(bytes(size) for size in range(ALIGN))

Buffer: TypeAlias = bytes | memoryview


class Kind(IntEnum):
    """What a frame does. A stream is opened by `ASK`, ended by `LAST`, `PROBLEM` or `CANCEL`."""

    ASK = 1
    """Opens a stream; its asker chose the number."""
    MORE = 2
    """Another word of the asker."""
    CANCEL = 3
    """The asker wants nothing more."""
    PIECE = 4
    """A part of the answer."""
    LAST = 5
    """The end of the answer."""
    PROBLEM = 6
    """The end of the answer, which is an error."""
    TELL = 7
    """Belongs to no stream and wants no answer."""


KINDS: Final = frozenset(int(kind) for kind in Kind)


class FrameError(ValueError):
    """What came is no frame of ours: the link is of no use any more."""


class Frame(msgspec.Struct, gc=False):
    """One that arrived. `data[start:start + size]` is the payload; arrays made of it keep `data` alive."""

    kind: int
    topic: int
    stream: int
    header: bytes
    data: bytes
    start: int
    size: int

    def payload(self) -> bytes:
        """A copy."""
        return self.data[self.start : self.start + self.size]


def pack(
    kind: int,
    topic: int,
    stream: int,
    header: bytes = b"",
    buffers: Sequence[Buffer] = (),
    size: int = 0,
    frame_bytes_max: int = 2**32 - 1,
) -> list[Buffer]:
    """The pieces of one frame. `buffers` have `size` bytes in all. Raises `FrameTooLarge`."""
    long = len(header)
    if HEAD.size + long + size > frame_bytes_max:
        raise FrameTooLarge(
            f"a message between processes would have {HEAD.size + long + size} bytes,"
            f" the most allowed is {frame_bytes_max} (--frame-bytes-max)"
        )
    return [
        HEAD.pack(VERSION, kind, topic, stream, long, size),
        header,
        PADS[-long % ALIGN],
        *buffers,
        PADS[-size % ALIGN],
    ]


class FrameReader:
    """Cuts a stream of bytes into frames. Holds at most one frame and what came with it."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEAD.size

    @property
    def held(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return self._have

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with `data`. Raises `FrameError`, after which the reader is of no use."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts = []
        frames: list[Frame] = []
        at, end = 0, len(data)
        need = HEAD.size
        while end - at >= HEAD.size:
            version, kind, topic, stream, header_bytes, payload_bytes = HEAD.unpack_from(data, at)
            if version != VERSION or kind not in KINDS:
                raise FrameError(f"a frame of version {version} and kind {kind}; expected version {VERSION}")
            start = at + HEAD.size
            payload_at = start + header_bytes + (-header_bytes % ALIGN)
            after = payload_at + payload_bytes + (-payload_bytes % ALIGN)
            if header_bytes + payload_bytes + HEAD.size > self._frame_bytes_max:
                raise FrameError(f"a frame claims {after - at} bytes, the most allowed is {self._frame_bytes_max}")
            if after > end:
                need = after - at
                break
            header = data[start : start + header_bytes]
            frames.append(Frame(kind, topic, stream, header, data, payload_at, payload_bytes))
            at = after
        self._have = end - at
        self._need = need
        if self._have:
            self._parts = [data[at:] if at else data]
        return frames
