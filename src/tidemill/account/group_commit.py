"""Many small durable writes as few large ones; the loop's side and the writer thread of the owner process.

A commit costs the same for one row as for thirty, so a group is held for a few milliseconds when as many as are held
for use to come in that time (`group_size.py`). The waiting rows belong to the loop, a group in flight to the thread;
they pass through two calls, never through shared lists.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tidemill.account.group_size import GroupSize
from tidemill.core.errors import LedgerUnavailable

log = logging.getLogger(__name__)

Row: TypeAlias = Sequence[Any]
Book: TypeAlias = Callable[[Sequence[Row]], None]
"""Writes rows durably, or raises and has written none."""


class GroupCommit:
    """A bounded queue before a writer thread.

    `write` and `close` belong to the loop that made it. Life: rows are refused after `close`, which returns when all
    that waited is durable.
    """

    def __init__(self, book: Book, queue_max: int, delay_s: float = 0.0) -> None:
        """`delay_s` is how long a group is held at most."""
        self._book = book
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._size = GroupSize()
        self._timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._writing = False
        self._queue_max = queue_max
        self._rows: list[Row] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = False
        self._groups: queue.SimpleQueue[tuple[list[Row], list[asyncio.Future[None]]] | None] = queue.SimpleQueue()
        self.open_count = 0
        """Charges that are open now, kept by the ledger: so many rows may come, and no more."""
        self.group_count = 0
        self.row_count = 0
        self._thread = threading.Thread(target=self._write_groups, name="group-commit", daemon=True)
        self._thread.start()

    def write(self, row: Row) -> asyncio.Future[None]:
        """Queue `row`; the future is done when it is durable, or holds `LedgerUnavailable`."""
        rows = self._rows
        if self._closed or len(rows) >= self._queue_max:
            raise LedgerUnavailable(f"{len(rows)} charges wait for the disk", retry_after_s=1.0)
        future = self._loop.create_future()
        rows.append(row)
        self._waiters.append(future)
        if not self._writing:
            self._hold()
        return future

    async def close(self) -> None:
        self._closed = True
        self._groups.put((self._rows, self._waiters))
        self._groups.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hold(self) -> None:
        """Hand over after this turn of the loop when as many wait as are worth waiting for, else in a moment."""
        if self._leaving:
            return
        enough = self._leaving = self._size.enough(len(self._rows), self.open_count)
        if self._timer is not None:
            if not enough:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(0.0 if enough else self._delay_s, self._hand_over)

    def _hand_over(self) -> None:
        self._timer = None
        self._leaving = False
        if self._rows and not self._closed:
            self._size.handed_over(len(self._rows), self.open_count)
            self._writing = True
            self._groups.put((self._rows, self._waiters))
            self._rows, self._waiters = [], []

    def _wake(self, waiters: list[asyncio.Future[None]], failure: BaseException | None) -> None:
        if failure is None:
            self.group_count += 1
            self.row_count += len(waiters)
        else:
            log.error("%d charges could not be written: %s", len(waiters), failure)
        for waiter in waiters:
            if waiter.done():
                continue  # its request was cancelled meanwhile; the charge stands
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(LedgerUnavailable("the charge could not be written, so nothing was billed"))
        self._writing = False
        if self._rows:
            self._hold()

    def _write_groups(self) -> None:
        while (group := self._groups.get()) is not None:
            rows, waiters = group
            failure: BaseException | None = None
            try:
                if rows:
                    self._book(rows)
            except Exception as error:  # noqa: BLE001 - the thread's outermost loop: reported to each waiter
                failure = error
            try:
                self._loop.call_soon_threadsafe(self._wake, waiters, failure)
            except RuntimeError:
                return  # the loop is gone, and nobody waits with it
