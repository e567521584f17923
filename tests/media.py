"""Pictures, sounds and tables as people send them."""

from __future__ import annotations

import io
import struct
import wave
import zlib

import numpy as np
from PIL import Image

from tidemill.core.tensor import Array


def png(width: int = 56, height: int = 56, mode: str = "L", colour: int | tuple[int, ...] = 0) -> bytes:
    return saved(Image.new(mode, (width, height), colour))


def saved(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def trousers() -> bytes:
    picture = Image.new("L", (56, 56))
    picture.paste(180, (16, 2, 40, 54))
    picture.paste(0, (26, 16, 30, 56))
    return saved(picture)


def png_that_claims(width: int, height: int) -> bytes:
    """The head of a PNG of that size, with a few bytes of content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tone(frequency_hz: float, seconds: float, rate_hz: int) -> Array:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)


def wav(samples: Array, rate_hz: int, width: int = 2, channels: int = 1) -> bytes:
    """PCM of `width` bytes, as the standard library writes it."""
    file = io.BytesIO()
    whole = np.round(np.repeat(samples, channels) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate_hz)
        writer.writeframes(b"".join(int(value).to_bytes(width, "little", signed=True) for value in whole))
    return file.getvalue()


def wav_of_floats(samples: Array, rate_hz: int, bits: int = 32) -> bytes:
    data = samples.astype(f"<f{bits // 8}").tobytes()
    size = bits // 8
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate_hz, rate_hz * size, size, bits)
    body = b"WAVE" + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def form(files: dict[str, tuple[str, bytes, str]], fields: dict[str, str] | None = None) -> tuple[str, bytes]:
    """The content-type and the body of a form; a file is (name, content, type), "" for no type."""
    line = "tide-7MA4YWxk"
    parts = [
        f'--{line}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in (fields or {}).items()
    ]
    for key, (name, content, media) in files.items():
        told = f"Content-Type: {media}\r\n" if media else ""
        head = f'--{line}\r\nContent-Disposition: form-data; name="{key}"; filename="{name}"\r\n{told}\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return f"multipart/form-data; boundary={line}", b"".join(parts) + f"--{line}--\r\n".encode()
