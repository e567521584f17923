"""Passes a connection that speaks HTTP/2 on to the gRPC server, so that one port answers REST and gRPC; owner's loop.

HTTP/2 with prior knowledge begins with a preface that no HTTP/1.1 request can (RFC 9113, 3.4). Bytes are not looked at
after that; each side is read no faster than the other takes.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import cast

log = logging.getLogger(__name__)

PREFACE = b"PRI * HTTP/2.0"
CONNECT_S_MAX = 5.0


def speaks_http2(first: bytes) -> bool:
    """Whether `first`, the beginning of a connection, is (that of) HTTP/2's preface."""
    return first[: len(PREFACE)] == PREFACE[: len(first)] and len(first) >= len(b"PRI ")


class Side(asyncio.Protocol):
    """One end of a relayed connection; what comes here goes out at `other`."""

    def __init__(self, transport: asyncio.Transport | None = None, ends: set[Side] | None = None) -> None:
        self.transport = transport
        self.other: Side | None = None
        self._ends = ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ends is not None:
            self._ends.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Relay:
    """Where relayed connections go; belongs to the loop. `ends` are those that are open now."""

    def __init__(self) -> None:
        self.ends: set[Side] = set()
        self._address: tuple[str, int] | Path | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def to(self, host: str, port: int) -> None:
        """The gRPC server listens at `port` of `host`, which may be any address of this machine."""
        self._address = ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104 - to reach it, not to bind

    def to_path(self, path: Path) -> None:
        """The gRPC server listens at a Unix socket too, in the clear: TLS ends here, where both share a port."""
        self._address = path

    def take(self, transport: asyncio.Transport, first: bytes) -> None:
        """Take a connection over, of which `first` has been read."""
        near = Side(transport, self.ends)
        self.ends.add(near)
        transport.pause_reading()
        transport.set_protocol(near)
        task = asyncio.get_running_loop().create_task(self._join(near, transport, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, near: Side, transport: asyncio.Transport, first: bytes) -> None:
        far = Side()
        near.other, far.other = far, near  # before connecting: the gRPC server speaks first
        try:
            onward = await asyncio.wait_for(self._connect(far), CONNECT_S_MAX)
        except OSError as error:
            log.warning("a gRPC connection could not be passed on: %s", error)
            transport.close()
            return
        if transport.is_closing():
            onward.close()
            return
        onward.write(first)
        transport.resume_reading()

    async def _connect(self, far: Side) -> asyncio.Transport:
        loop, address = asyncio.get_running_loop(), self._address
        if address is None:
            raise OSError("the gRPC server has not started")
        if isinstance(address, Path):
            transport, _ = await loop.create_unix_connection(lambda: far, str(address))
        else:
            transport, _ = await loop.create_connection(lambda: far, *address)
        return transport
