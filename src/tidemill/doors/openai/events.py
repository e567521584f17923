"""Server-sent events on one response, kept alive while nothing is said; runs on the owner's loop.

Nothing is buffered here: `put` returns when the transport takes more, so a reader that is slow holds up the one who
says it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from tidemill.doors.head import Send

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that gather what they pass on are asked not to
]
ALIVE: Final = b": still here\n\n"
"""A comment, which every reader of events leaves alone."""


class Events:
    """Life: a context manager; `keep_alive`, `put` any number of times, then `end`. The response begins with the first
    event, or with the first sign of life: until then it may still become another."""

    def __init__(self, send: Send, keep_alive_s: float) -> None:
        self.begun = False
        self._send = send
        self._keep_alive_s = keep_alive_s
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._said_at = self._loop.time()
        self._alive: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fall_silent()

    def keep_alive(self) -> None:
        """Show signs of life from now on. Whoever wants another response says `fall_silent` before."""
        self._alive = self._loop.create_task(self._keep_alive())

    def fall_silent(self) -> None:
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None

    async def put(self, data: bytes) -> None:
        if data:
            await self._put(data, more=True)

    async def end(self, data: bytes = b"") -> None:
        """Say the last of it."""
        self.fall_silent()
        await self._put(data, more=False)

    async def _put(self, data: bytes, more: bool) -> None:
        async with self._lock:
            if not self.begun:
                self.begun = True
                await self._send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
            self._said_at = self._loop.time()

    async def _keep_alive(self) -> None:
        while True:
            silent_s = self._loop.time() - self._said_at
            if silent_s < self._keep_alive_s:
                await asyncio.sleep(self._keep_alive_s - silent_s)
            else:
                await self._put(ALIVE, more=True)
