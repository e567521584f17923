"""Ends this process when its parent is gone; runs on a thread of the console's process.

A dead parent is noticed at once through a pidfd where the system has them, else by asking once a second.
"""

from __future__ import annotations

import os
import select
import threading
import time

CHECK_S = 1.0


def watch(parent: int) -> None:
    """From now on, exit with 0 as soon as the process `parent` has ended."""
    threading.Thread(target=_exit_after, args=(parent,), name="parent", daemon=True).start()


def _exit_after(parent: int) -> None:
    wait_for_end(parent)
    os._exit(0)


def wait_for_end(pid: int) -> None:
    """Return once the process `pid` has ended. A process that was never there has ended."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:  # a kernel without pidfds, or a sandbox that forbids them
            _poll(pid)
            return
        try:
            select.select([descriptor], [], [])
        finally:
            os.close(descriptor)
    else:
        _poll(pid)


def _poll(pid: int) -> None:
    child = os.getppid() == pid
    while _alive(pid, child):
        time.sleep(CHECK_S)


def _alive(pid: int, child: bool) -> bool:
    if child:  # a parent that ended hands its children on, also while it is a zombie
        return os.getppid() == pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
