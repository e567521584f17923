"""A request and its response on one connection, as uvicorn's protocol wants them, made at less cost; runs on the
owner's loop."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HEAD_BYTES_MAX = 4096
"""A longer head is not remembered."""


class Cycle(RequestResponseCycle):
    """uvicorn's, with an event that is only there once somebody waits for it."""

    def __init__(self, connection: Any, scope: Any, keep_alive: bool, expects: bool = False) -> None:
        # In place of uvicorn's own: fourteen arguments by name cost as much as all the rest.
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.access_logger = connection.access_logger
        self.access_log = False
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0
        self._event: asyncio.Event | None = None

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        if self._event is None:
            self._event = asyncio.Event()
            if self.body or not self.more_body or self.disconnected:
                self._event.set()
        return self._event

    def wake(self) -> None:
        """Tell whoever waits for more of the request."""
        if self._event is not None:
            self._event.set()


class Repeat(NamedTuple):
    """A request to the letter of whose head the next one may come: then there is nothing to parse."""

    head: bytes
    size: int
    scope: dict[str, Any]

    def fits(self, data: bytes) -> bool:
        """Whether `data` is such a request, whole and alone: its body has the length that the head says."""
        return len(data) == self.size and data.startswith(self.head)


def repeat_of(data: bytes, cycle: Any) -> Repeat | None:
    """What may be repeated of a request that was just parsed from all of `data`; None where that is more than a plain
    head and its body."""
    end = len(data) - len(cycle.body)
    if cycle.more_body or not cycle.keep_alive or cycle.waiting_for_100_continue or end > HEAD_BYTES_MAX:
        return None
    if data.find(b"\r\n\r\n") != end - 4:
        return None
    headers = cycle.scope["headers"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if lengths != [b"%d" % len(cycle.body)] or any(name == b"transfer-encoding" for name, _ in headers):
        return None
    return Repeat(data[:end], len(data), dict(cycle.scope))
