"""Blocking work beside the loop, on a thread that keeps no process from ending; runs in the owner process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_at_work: set[threading.Thread] = set()


def at_work() -> bool:
    """Whether something that nobody may wait for any more still runs."""
    return any(thread.is_alive() for thread in _at_work)


async def aside(function: Callable[[], T], seconds_max: float, too_late: Callable[[T], None]) -> T:
    """What `function` gives or raises on a thread of its own.

    Raises `TimeoutError` after `seconds_max`; the thread cannot be stopped, and what it gives then goes to `too_late`,
    which must not raise.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if error is not None:
            if not future.done():
                future.set_exception(error)
        elif future.done():
            too_late(result)  # type: ignore[arg-type] # there was no error
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failed = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            failed = error
        _at_work.discard(thread)
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            return  # the loop is gone, and those who waited with it

    thread = threading.Thread(target=work, name="aside", daemon=True)
    _at_work.add(thread)
    thread.start()
    return await asyncio.wait_for(future, seconds_max)
