"""An open-loop HTTP/1.1 load generator: requests fall due when the schedule says; runs in the caller's process.

A latency counts from when its request was *due*, so a server that is slow cannot slow the load down and look quick.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence

from tidemill.client.alarm import Alarm
from tidemill.client.connection import Bodies, Connection, Load
from tidemill.client.http1 import Target
from tidemill.client.result import Answer, OnAnswer, Result, Retries, check_open

__all__ = ["Answer", "OnAnswer", "Result", "Retries", "run"]


async def run(
    url: str,
    body: Bodies = b"",
    headers: Mapping[str, str] | None = None,
    *,
    arrivals: Sequence[float],
    connections: int,
    grace_s: float = 5.0,
    method: str = "POST",
    on_answer: OnAnswer | None = None,
    retries: Retries | None = None,
    streamed: bool = False,
) -> Result:
    """Send a request at each of `arrivals`, ascending seconds from the start.

    `connections` are opened first, as many as may be in flight; what is due while all of them are busy waits, and its
    wait counts. What still waits `grace_s` after the last arrival is not sent, and counted in `unsent`. Else as
    `load.run`.
    """
    check_open(arrivals, connections)
    load = _Open(
        Target(url), body, headers or {}, method=method, on_answer=on_answer, retries=retries, streamed=streamed
    )
    load.plan(arrivals, connections, grace_s)
    try:
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(load.keep_connected()) for _ in range(connections)]
            group.create_task(load.conduct(keepers))
    finally:
        load.over()
    load.result.wall_s = time.perf_counter() - load.started
    return load.result


class _Open(Load):
    """Connections that are free wait in `_idle`; what is due and found none waits in `_due`."""

    started = 0.0
    _alarm: Alarm | None = None

    def plan(self, arrivals: Sequence[float], connections: int, grace_s: float) -> None:
        self._arrivals = arrivals
        self._connections = connections
        self._grace_s = grace_s
        self._at = 0
        self._ended = False
        self._all_sent = asyncio.Event()
        self._due: deque[tuple[int, float]] = deque()
        self._idle: list[Connection] = []
        self._there = asyncio.Event()

    @property
    def left(self) -> bool:
        return not self._ended and not self.stopped

    def next(self) -> tuple[int, float | None] | None:
        if not self._due:
            return None
        number, due_at = self._due.popleft()
        self.result.late_s.append(time.perf_counter() - due_at)
        if not self._due and self._at == len(self._arrivals):
            self._all_sent.set()
        return number, due_at

    def parks(self, connection: Connection) -> bool:
        if not self.left:
            return False
        self._idle.append(connection)
        if len(self._idle) == self._connections:
            self._there.set()
        return True

    def gone(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    async def conduct(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """From the first arrival to the time when nothing more is sent."""
        there, all_sent = asyncio.create_task(self._there.wait()), asyncio.create_task(self._all_sent.wait())
        away = asyncio.create_task(_all_of(keepers))
        try:
            await asyncio.wait((there, away), timeout=self.retries.connect_s_max, return_when=asyncio.FIRST_COMPLETED)
            self.started = time.perf_counter()
            self._alarm = Alarm(self._ring)
            self._alarm.set(self.started + self._arrivals[0])
            limit = self._arrivals[-1] + self._grace_s
            await asyncio.wait((all_sent, away), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (there, all_sent, away):
                each.cancel()
            self.over()

    def over(self) -> None:
        """Send nothing more; those under way are still waited for."""
        if self._ended:
            return
        self._ended = True
        self.result.unsent += len(self._due) + len(self._arrivals) - self._at
        self._at = len(self._arrivals)
        self._due.clear()
        if self._alarm is not None:
            self._alarm.close()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _ring(self) -> None:
        now = time.perf_counter()
        while self._at < len(self._arrivals) and self.started + self._arrivals[self._at] <= now:
            self._due.append((self._at, self.started + self._arrivals[self._at]))
            self._at += 1
        while self._due and self._idle:
            self._idle.pop().ask()
        if self._at < len(self._arrivals) and self._alarm is not None and not self._ended:
            self._alarm.set(self.started + self._arrivals[self._at])


async def _all_of(keepers: Sequence[asyncio.Task[None]]) -> None:
    """Until every connection has given up: nobody is there to send to."""
    await asyncio.wait(keepers)
