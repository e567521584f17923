"""The first bytes of a connection on a port that speaks TLS: handshake, or a word to those who come in the clear.

Runs on the owner's loop. Each connection takes the certificates that are current when it begins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, cast

from tidemill.core.certificates import Renewal
from tidemill.core.errors import HandshakeFailed, MalformedRequest, TidemillError

log = logging.getLogger(__name__)

HANDSHAKE = 0x16
"""The first byte of TLS (RFC 8446, 5.1)."""
PROTOCOLS = ("http/1.1", "h2")
"""In this order: one that can speak both, as curl can, is answered REST; gRPC's clients offer h2 alone."""


class Entrances:
    """What the entrances of one server share. `open` are the connections whose handshake is not done."""

    def __init__(self, renewal: Renewal, timeout_s: float, refused: Callable[[str], None]) -> None:
        self._renewal = renewal
        self._certificates = renewal.current
        self._context = self._certificates.context(PROTOCOLS)
        self.timeout_s = timeout_s
        self.refused = refused
        self.open: set[Entrance] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def context(self) -> Any:
        if self._renewal.current is not self._certificates:
            self._certificates = self._renewal.current
            self._context = self._certificates.context(PROTOCOLS)
        return self._context

    def check_time(self, now: float) -> None:
        """Hang up on those who do not begin. Called by the sweep."""
        for each in list(self.open):
            if now - each.since > self.timeout_s and each.task is None and each.transport is not None:
                self.refused(HandshakeFailed.code)
                each.transport.abort()

    def close(self) -> None:
        for each in list(self.open):
            if each.transport is not None:
                each.transport.abort()


class Entrance(asyncio.Protocol):
    """Stands in for `inner` until the handshake is done, and then gives way to it."""

    def __init__(self, entrances: Entrances, inner: Callable[[], asyncio.Protocol], full: Callable[[], bool]) -> None:
        """`inner` makes the protocol behind; `full` tells that no connection more is taken."""
        self.entrances = entrances
        self._inner = inner
        self._full = full
        self.since = time.monotonic()
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.entrances.open.add(self)
        if self._full():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.entrances.open.discard(self)

    def data_received(self, data: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if data[0] != HANDSHAKE:
            self._in_the_clear(transport, data)
            return
        transport.pause_reading()
        loop = asyncio.get_running_loop()
        self.task = task = loop.create_task(self._shake_hands(transport))
        self.entrances.tasks.add(task)
        task.add_done_callback(self.entrances.tasks.discard)
        # The task's first step puts TLS before the transport and asks the loop to begin it; what has been read already
        # follows, in the loop's order, before anything is read again.
        loop.call_soon(loop.call_soon, _feed, transport, data)

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        entrances = self.entrances
        early = _Early()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, early, entrances.context, server_side=True, ssl_handshake_timeout=entrances.timeout_s
            )
        except OSError as error:  # `ssl.SSLError` is one, and so is its time-out
            log.debug("no TLS with a client: %s", error)
            entrances.refused(HandshakeFailed.code)
            return
        finally:
            entrances.open.discard(self)
        if secured is None or early.lost:
            return
        protocol = self._inner()
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
        for part in early.parts:
            protocol.data_received(part)

    def _in_the_clear(self, transport: asyncio.Transport, data: bytes) -> None:
        """Told in the clear what is wrong, where it speaks HTTP; gRPC's clients see the connection end."""
        self.entrances.open.discard(self)
        error: TidemillError = MalformedRequest("this port speaks TLS; ask it with https://")
        protocol = self._inner()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        refuse = getattr(protocol, "refuse", None)
        if refuse is not None:
            refuse(error)
        transport.close()


class _Early(asyncio.Protocol):
    """Keeps what comes between the end of a handshake and the protocol behind: one turn of the loop's worth."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def _feed(transport: asyncio.Transport, data: bytes) -> None:
    """Give `data`, which was read before TLS stood before `transport`, to TLS."""
    protocol: Any = transport.get_protocol()  # a `BufferedProtocol` by its methods; uvloop's is none by descent
    if isinstance(protocol, Entrance) or transport.is_closing():
        return
    rest = memoryview(data)
    while rest:
        room = memoryview(protocol.get_buffer(len(rest))).cast("B")
        count = min(len(room), len(rest))
        room[:count] = rest[:count]
        protocol.buffer_updated(count)
        rest = rest[count:]
