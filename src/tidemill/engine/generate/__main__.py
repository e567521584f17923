"""`python -m tidemill.engine.generate`: the child that generates; started by the owner over a socket, ends with it."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys

from tidemill.core.errors import EngineFailed
from tidemill.engine.generate import checker, child
from tidemill.wire.peer import Bounds

PR_SET_PDEATHSIG = 1
BROKEN = 70
"""Exit code of a child whose pipeline broke; what it logged tells why."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tidemill.engine.generate", description="Started by `tidemill serve`."
    )
    parser.add_argument("--link", type=int, required=True, help="descriptor of the link to the owner")
    parser.add_argument("--bounds", type=int, nargs=3, required=True, help="those of the link: `wire.peer.Bounds`")
    parser.add_argument("--owner", type=int, required=True, help="process id of the owner")
    parser.add_argument("--check", action="store_true", help="check what answers must fit, instead of generating")
    given = parser.parse_args()
    _end_with(given.owner)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it reaches the owner too, which decides
    code = 0
    try:
        run = checker.run if given.check else child.run
        asyncio.run(run(socket.socket(fileno=given.link), Bounds(*given.bounds)))
    except EngineFailed as error:
        logging.getLogger(__name__).error("%s; the process that generates ends", error.message)
        code = BROKEN
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the library's own end complains about what it still holds


def _end_with(owner: int) -> None:
    """Be killed by the system when the owner dies, whatever a step is at. Linux only; elsewhere the socket's end tells,
    after the step."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(0)


if __name__ == "__main__":
    main()
