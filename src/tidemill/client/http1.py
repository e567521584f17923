"""HTTP/1.1 as a load generator needs it: a request's bytes, an answer out of a stream; runs in the caller's process.

Pure: no sockets. One request is in flight on a connection, so one answer is what a stream holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from tidemill.core.errors import InvalidSetting

HEAD_BYTES_MAX = 64 * 2**10
SHORT_BYTES = 4096
_BODILESS = (204, 304)


class BadAnswer(ValueError):
    """What the server sent is not an HTTP/1.1 answer."""


class Target:
    """Where a URL leads. Raises `InvalidSetting`."""

    __slots__ = ("host", "path", "port", "tls")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSetting(f"url {url!r}: expected http://HOST[:PORT]/PATH")
        try:
            port = parts.port
        except ValueError as error:
            raise InvalidSetting(f"url {url!r}: {error}") from error
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = port or (443 if self.tls else 80)
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Raises `InvalidSetting` for a name or value that would break the head."""
    lines = []
    for name, value in headers.items():
        if not name or any(mark in name for mark in "\r\n: ") or "\r" in value or "\n" in value:
            raise InvalidSetting(f"header {name!r}: {value!r} cannot be sent; a header is one line")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


def request_head(target: Target, method: str, headers: Mapping[str, str], body_bytes: int) -> bytes:
    """The head without the empty line that ends it, so that a request may add lines of its own."""
    fixed = f"{method} {target.path} HTTP/1.1\r\nhost: {target.authority}\r\ncontent-length: {body_bytes}\r\n"
    return fixed.encode("latin-1") + header_lines(headers)


class AnswerReader:
    """Collects one answer.

    Life: `feed` until it returns True, or `end` when the stream ended; then read `status`, `head` and `body`; `reset`
    makes it ready for the next answer.
    """

    __slots__ = ("_buffer", "_chunked", "_length", "body", "closes", "head", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.status = 0
        self.head = b""
        self.body = b""
        self.closes = False
        self._buffer = bytearray()
        self._chunked = False
        self._length = -1

    def feed(self, data: bytes) -> bool:
        """Whether the answer is whole. Raises `BadAnswer`."""
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        if not self.status:
            buffer = self._read_head(buffer)
        if self.status and (not self._chunked or _may_end(buffer, len(data))) and self._whole(buffer):
            return True
        if buffer is not self._buffer:
            self._buffer = bytearray(buffer)
        return False

    def end(self) -> bool:
        """The stream ended: whether that made the answer whole, as it does for one without a length."""
        if not self.status or self._length >= 0 or self._chunked:
            return False
        self.body, self.closes = bytes(self._buffer), True
        return True

    def _whole(self, buffer: bytes | bytearray) -> bool:
        if self._length >= 0:
            used = self._length
            if len(buffer) < used:
                return False
            self.body = bytes(buffer)
        elif self._chunked:
            found = dechunk(buffer)
            if found is None:
                return False
            self.body, used = found
        else:
            return False
        if used != len(buffer):
            raise BadAnswer(f"{len(buffer) - used} bytes follow the answer")
        return True

    def _read_head(self, buffer: bytes | bytearray) -> bytes | bytearray:
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(buffer) > HEAD_BYTES_MAX:
                    raise BadAnswer(f"a head of more than {HEAD_BYTES_MAX} bytes")
                return buffer
            status = _status(buffer)
            head, buffer = bytes(buffer[:end]), buffer[end + 4 :]
            if status >= 200:
                self._take_head(status, head)
                return buffer

    def _take_head(self, status: int, head: bytes) -> None:
        lower = head.lower()
        length = _value(lower, b"content-length")
        connection = _value(lower, b"connection")
        self.status, self.head = status, head
        self.closes = connection == b"close" or head.startswith(b"HTTP/1.0")
        self._chunked = _value(lower, b"transfer-encoding") == b"chunked"
        if status in _BODILESS:
            self._length = 0
        elif length is not None and not self._chunked:
            if not length.isdigit():
                raise BadAnswer(f"content-length {length!r}")
            self._length = int(length)


def _may_end(buffer: bytes | bytearray, new: int) -> bool:
    """Whether a chunked body may have got its end with the last `new` bytes: a long stream is not read anew with each
    of its parts."""
    if len(buffer) <= SHORT_BYTES:
        return True
    tail = buffer[-(new + 8) :]
    return b"0\r\n" in tail or b"\r\n\r\n" in tail


def header(head: bytes, name: str) -> str | None:
    """The first value of `name` in an answer's head."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name.lower().encode("latin-1"):
            return value.strip().decode("latin-1")
    return None


def dechunk(buffer: bytes | bytearray) -> tuple[bytes, int] | None:
    """The body of a chunked answer and the bytes it took; None while some are missing. Raises `BadAnswer`."""
    parts: list[bytes | bytearray] = []
    at = 0
    while True:
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        size = _chunk_size(buffer[at:end])
        at = end + 2
        if size == 0:
            return _after_trailers(buffer, at, parts)
        if len(buffer) < at + size + 2:
            return None
        parts.append(buffer[at : at + size])
        if buffer[at + size : at + size + 2] != b"\r\n":
            raise BadAnswer("a chunk does not end with its line")
        at += size + 2


def _after_trailers(buffer: bytes | bytearray, at: int, parts: list[bytes | bytearray]) -> tuple[bytes, int] | None:
    if buffer.startswith(b"\r\n", at):
        return b"".join(parts), at + 2
    end = buffer.find(b"\r\n\r\n", at)
    return None if end < 0 else (b"".join(parts), end + 4)


def _chunk_size(line: bytes | bytearray) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as error:
        raise BadAnswer(f"a chunk of size {bytes(line[:40])!r}") from error


def _status(buffer: bytes | bytearray) -> int:
    if not buffer.startswith(b"HTTP/1.") or not buffer[9:12].isdigit():
        raise BadAnswer(f"an answer that begins with {bytes(buffer[:40])!r}")
    return int(buffer[9:12])


def _value(lower: bytes, name: bytes) -> bytes | None:
    start = lower.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = lower.find(b"\r\n", start)
    return lower[start : end if end >= 0 else len(lower)].strip()
