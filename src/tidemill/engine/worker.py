"""The thread of a lane: runs one piece of work after the other, and never keeps a process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class Worker:
    """A daemon thread, so that an engine stuck in its work cannot hold up a process that has drained.

    Life: started by the first `submit`, ended by `close`, which does not wait.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """`function` must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.put((function, arguments))

    def close(self) -> None:
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            function, arguments = work
            function(*arguments)
            del function, arguments, work  # the last batch is not kept alive until the next one
