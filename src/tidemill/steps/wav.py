"""Reads WAV: RIFF with PCM of 8, 16, 24 or 32 bits or floats of 32 or 64; pure, any process.

The facts are those of Microsoft's RIFF specification: chunks of an identifier, a length and content, padded to even
lengths; of these `fmt ` and `data` are read. WAVE_FORMAT_EXTENSIBLE names its true format in the first bytes of a GUID.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tidemill.core.errors import BadMedia
from tidemill.core.tensor import Array

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
CHUNKS_MAX = 1024
CHANNELS_MAX = 64
RATE_HZ_MIN, RATE_HZ_MAX = 1000, 384_000
UNKNOWN_LENGTH = 0xFFFFFFFF
"""What a writer that could not seek back leaves as a length: until the end."""


def read(data: bytes, seconds_max: float) -> tuple[Array, int]:
    """float32 [samples], the mean of all channels, -1 to 1, and the rate in Hz. Raises `BadMedia`."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        raise BadMedia(f"{len(data)} bytes that begin with {data[:12].hex()} are no WAV: RIFF....WAVE is expected")
    kind = channels = rate_hz = bits = 0
    for name, content in _chunks(data):
        if name == b"fmt ":
            kind, channels, rate_hz, bits = _format(content)
        elif name == b"data":
            if not kind:
                raise BadMedia("the WAV has its data before its format")
            return _samples(content, kind, channels, bits, rate_hz, seconds_max), rate_hz
    raise BadMedia("the WAV has no data" if kind else "the WAV has neither format nor data; is it cut short?")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    place = 12
    for _ in range(CHUNKS_MAX):
        if place + 8 > len(data):
            return
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8
        if length > len(data) - place and not (name == b"data" and length == UNKNOWN_LENGTH):
            raise BadMedia(
                f"the WAV's part {name!r} is said to have {length} bytes, {len(data) - place} are there;"
                " is it cut short?"
            )
        yield name, view[place : place + length]
        place += length + length % 2
    raise BadMedia(f"the WAV has more than {CHUNKS_MAX} parts")


def _format(content: memoryview) -> tuple[int, int, int, int]:
    if len(content) < 16:
        raise BadMedia(f"the WAV's format has {len(content)} bytes, expected at least 16")
    kind, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if kind == EXTENSIBLE and len(content) >= 26:
        kind = int.from_bytes(content[24:26], "little")
    if (kind, bits) not in ((PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)):
        raise BadMedia(f"the WAV has format {kind} of {bits} bits; PCM of 8, 16, 24 or 32 and floats are read")
    if not 1 <= channels <= CHANNELS_MAX or not RATE_HZ_MIN <= rate_hz <= RATE_HZ_MAX:
        raise BadMedia(
            f"the WAV has {channels} channels at {rate_hz} Hz; read are 1 to {CHANNELS_MAX}"
            f" at {RATE_HZ_MIN} to {RATE_HZ_MAX} Hz"
        )
    return kind, channels, rate_hz, bits


def _samples(content: memoryview, kind: int, channels: int, bits: int, rate_hz: int, seconds_max: float) -> Array:
    frame_bytes = channels * bits // 8
    count = len(content) // frame_bytes
    if not count:
        raise BadMedia(f"the WAV has {len(content)} bytes of sound, which is not one sample of {channels} channels")
    if count > seconds_max * rate_hz:
        raise BadMedia(
            f"the WAV lasts {count / rate_hz:.0f} s, the most allowed is {seconds_max:g} s (--audio-s-max); send a part"
        )
    plain = _numbers(content[: count * frame_bytes], kind, bits)
    if channels == 1:
        return np.ascontiguousarray(plain, np.float32)
    return np.ascontiguousarray(plain.reshape(count, channels).mean(axis=1), np.float32)


def _numbers(content: memoryview, kind: int, bits: int) -> Array:
    if kind == FLOAT:
        found = np.frombuffer(content, f"<f{bits // 8}").astype(np.float32)
        if not np.isfinite(found).all():
            raise BadMedia("the WAV holds samples that are no numbers (NaN or infinite)")
        return found
    if bits == 8:
        return (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / 128
    if bits == 24:
        parts = np.frombuffer(content, np.uint8).reshape(-1, 3)
        whole = np.zeros((len(parts), 4), np.uint8)
        whole[:, 1:] = parts  # in the upper three bytes, so that the sign is where it belongs
        return whole.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    return np.frombuffer(content, f"<i{bits // 8}").astype(np.float32) / np.float32(2 ** (bits - 1))
