"""Server-sent events out of a stream of bytes, as the WHATWG's HTML standard, section 9.2, writes them; runs in the
caller's process. Pure: no sockets."""

from __future__ import annotations

from tidemill.core.errors import ServerRefused

EVENT_BYTES_MAX = 4 * 2**20
"""Of one event; a server that sends more than that without an end sends no words of a model."""


class EventReader:
    """Gives the data of each event that is whole. What a stream that ended leaves behind is no event.

    Names, ids and comments are passed over: OpenAI's dialect says all in the data.
    """

    __slots__ = ("_data", "_kept", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._kept = 0

    def feed(self, part: bytes) -> list[bytes]:
        """Raises `ServerRefused` for an event without an end."""
        buffer = self._rest + part
        # A carriage return at the end may be the first half of a line's end: it waits for the next part.
        held = b"\r" if buffer.endswith(b"\r") else b""
        lines = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                self._data.append(value)
                self._kept += len(value)
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data, self._kept = [], 0
        if self._kept + len(self._rest) > EVENT_BYTES_MAX:
            raise ServerRefused(
                f"the server sent an event of more than {EVENT_BYTES_MAX} bytes; that is no model's word"
            )
        return found
