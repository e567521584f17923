"""Server-sent events out of bytes as they come; pure. The format is WHATWG's, HTML section 9.2.6."""

from __future__ import annotations

from collections.abc import Iterator

from tidemill.core.errors import UpstreamFailed

EVENT_BYTES_MAX = 4 * 2**20


class Events:
    """Feed bytes, get the data of each event that is whole. Comments and the other fields are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Raises `UpstreamFailed` for an event without end."""
        lines = (self._rest + part).split(b"\n")
        self._rest = lines.pop()
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if not line:
                if self._data:
                    data, self._data, self._size = b"\n".join(self._data), [], 0
                    yield data
            elif line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                self._data.append(value)
                self._size += len(value)
        if len(self._rest) + self._size > EVENT_BYTES_MAX:
            raise UpstreamFailed(f"the upstream sent an event of more than {EVENT_BYTES_MAX} bytes")
