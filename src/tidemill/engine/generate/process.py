"""The child that generates, as the owner sees it: started, told what to load, restarted; belongs to the owner's loop.

Life: `open` starts it and returns when it has loaded, after which it is started again with growing pauses whenever it
ends, until `close`. It is reached over a pair of sockets that it inherits: there is no address to be reached by others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from contextvars import Context
from typing import Final, Protocol

from tidemill.core.errors import RefusedModel
from tidemill.engine.generate.messages import Opening, Ready, Step, Topic, encode, read_ready, read_step, read_text
from tidemill.wire.child import ending, reap, spawn
from tidemill.wire.frames import Frame, FrameError
from tidemill.wire.peer import Asked, Bounds, Peer, open_peer

log = logging.getLogger(__name__)

RESTART_S_MIN: Final = 0.05
STEADY_S: Final = 10.0
"""A child that served so long starts again without a longer pause."""


class Listener(Protocol):
    """Who hears of the child."""

    def brought(self, step: Step) -> None: ...

    def lost(self, why: str) -> None:
        """It has ended, with all that it was working on."""


class Child:
    """`peer` is the way to it while it serves, None while it does not."""

    def __init__(
        self,
        name: str,
        opening: Opening,
        bounds: Bounds,
        restart_s_max: float,
        listener: Listener,
        module: str,
        words: tuple[str, ...] = (),
    ) -> None:
        """The child runs `module` (see `started`); `words` go to its command line."""
        self.name = name
        self._what = f"the process that {'checks what answers must fit' if words else 'generates'}"
        self._command = ["-m", module, *words]
        self._up = asyncio.Event()
        self.heard_at = time.monotonic()
        self.restarts = 0
        self.peer: Peer | None = None
        self.ready: Ready | None = None
        self.opening = opening
        self._bounds = bounds
        self._restart_s_max = restart_s_max
        self._listener = listener
        self._link: Peer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: asyncio.Future[Ready] | None = None
        self._ended = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def open(self) -> Ready:
        """Raises `RefusedModel`."""
        try:
            ready = await self._start()
        except BaseException:
            await self.close()
            raise
        # What it logs is not of the request that happened to start it.
        self._keeping = asyncio.create_task(self._keep(), context=Context())
        return ready

    async def serving(self) -> Peer:
        """The way to it, when it serves again."""
        while self.peer is None:
            await self._up.wait()
        return self.peer

    def kill(self) -> None:
        """End it at once; it is started again, and nobody is sent to it until then."""
        self.peer = None
        self._up.clear()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self.peer = None
        if self._link is not None:
            self._link.close()
        await reap(self._process)

    async def _keep(self) -> None:
        """Start it again whenever it has ended."""
        pause_s, since = RESTART_S_MIN, time.monotonic()
        while True:
            await self._ended.wait()
            await reap(self._process)
            pause_s = RESTART_S_MIN if time.monotonic() - since > STEADY_S else pause_s
            log.error(
                "%s has ended (%s); it is started again",
                self._what,
                self._told(),
                extra={"model": self.name, "pause_s": pause_s},
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._restart_s_max)
            self.restarts += 1
            since = time.monotonic()
            try:
                await self._start()
            except (RefusedModel, OSError) as error:
                log.error("%s cannot be started: %s", self._what, error, extra={"model": self.name})

    async def _start(self) -> Ready:
        self._ended.clear()
        loaded: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._loaded = loaded
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        bounds = self._bounds
        command = [sys.executable, *self._command, "--link", str(its.fileno()), "--owner", str(os.getpid())]
        command += ["--bounds", str(bounds.frame_bytes_max), str(bounds.in_flight_max), str(bounds.buffer_bytes)]
        try:
            self._process = spawn(command, [its.fileno()])
        except BaseException:
            mine.close()
            self._ended.set()
            raise
        finally:
            its.close()
        self._link = link = await open_peer(mine, bounds, _Link(self))
        link.tell(int(Topic.OPEN), encode(self.opening))
        self.ready = ready = await loaded
        self.peer = link
        self._up.set()
        return ready

    # -- what the link tells -------------------------------------------------------------------------------------------

    def told(self, frame: Frame) -> None:
        topic = frame.topic
        self.heard_at = time.monotonic()
        if topic == Topic.STEP:
            self._listener.brought(read_step(frame.header))
        elif self._loaded is None or self._loaded.done():
            raise FrameError(f"the child that generates told something about topic {topic}")
        elif topic == Topic.READY:
            self._loaded.set_result(read_ready(frame.header))
        elif topic == Topic.REFUSED:
            self._loaded.set_exception(RefusedModel(read_text(frame.header)))

    def lost(self) -> None:
        self.peer = None
        self._up.clear()
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_exception(
                RefusedModel("the process that generates ended while it loaded the model; what it logged tells why")
            )
        self._listener.lost(self._told())
        self._ended.set()

    def _told(self) -> str:
        return ending(self._process, "its link is gone")


class _Link:
    """`wire.peer.Handler` of the owner."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def asked(self, stream: Asked, frame: Frame) -> None:
        raise FrameError("the child that generates asks nothing")

    def told(self, frame: Frame) -> None:
        self._child.told(frame)

    def lost(self) -> None:
        self._child.lost()
