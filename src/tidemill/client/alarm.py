"""Wakes a loop at a point of time, to some ten microseconds; runs in the caller's process.

The timers of asyncio and uvloop tick in milliseconds, which is more than a quick model takes to answer. Linux has a
timer that is a file, and loops are prompt with files; elsewhere the loop's own timer must do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_MONOTONIC, _ABSOLUTE = 1, 1
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanos", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Life: `set` it as often as wanted, the last one counts; `close` when done. Times are `time.perf_counter`'s."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._file = _timer_file()
        if self._file >= 0:
            self._loop.add_reader(self._file, self._read)

    def set(self, at: float) -> None:
        if _LIBC is not None and self._file >= 0:
            seconds, rest = divmod(max(at, 1e-6), 1.0)  # zero would stop the timer
            value = _Itimerspec(_Timespec(0, 0), _Timespec(int(seconds), int(rest * 1e9)))
            if _LIBC.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(value), None) == 0:
                return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(at - time.perf_counter(), 0.0), self._ring)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _read(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._ring()


def _timer_file() -> int:
    """A new one, -1 where there is none. `time.perf_counter` is the clock it follows."""
    if _LIBC is None:
        return -1
    found: int = _LIBC.timerfd_create(_MONOTONIC, _FLAGS)
    return found


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None
