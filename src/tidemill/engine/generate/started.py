"""How a child begins and ends: over a socket from its owner, and with it; runs in the child, on its main thread."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeAlias

from tidemill.core.errors import EngineFailed
from tidemill.wire.peer import Bounds

PR_SET_PDEATHSIG: Final = 1
BROKEN: Final = 70
"""Exit code of a child whose engine broke; what it logged tells why."""

Run: TypeAlias = Callable[[socket.socket, Bounds], Coroutine[Any, Any, None]]


def main(module: str, generate: Run, check: Run) -> None:
    """The command line of `python -m MODULE`; does not return."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Started by `tidemill serve`.")
    parser.add_argument("--link", type=int, required=True, help="descriptor of the link to the owner")
    parser.add_argument("--bounds", type=int, nargs=3, required=True, help="those of the link: `wire.peer.Bounds`")
    parser.add_argument("--owner", type=int, required=True, help="process id of the owner")
    parser.add_argument("--check", action="store_true", help="check what answers must fit, instead of generating")
    given = parser.parse_args()
    end_with(given.owner)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it reaches the owner too, which decides
    code = 0
    try:
        run = check if given.check else generate
        asyncio.run(run(socket.socket(fileno=given.link), Bounds(*given.bounds)))
    except EngineFailed as error:
        logging.getLogger(__name__).error("%s; the process that generates ends", error.message)
        code = BROKEN
    leave(code)


def leave(code: int) -> NoReturn:
    """End this process at once: a library's own end complains about what it still holds, or waits for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_with(parent: int) -> None:
    """Be killed by the system when the process `parent`, which started this one, dies, whatever this one is at. Linux
    only; elsewhere the socket's end tells, after the step."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
