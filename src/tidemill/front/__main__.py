"""`python -m tidemill.front`: a front process; started by the owner over sockets that it hands down, ends with it."""

from __future__ import annotations

import argparse
import socket

import uvloop

from tidemill.front.process import run
from tidemill.wire.peer import Bounds


def main() -> None:
    """Serve until told to end, or until the owner is gone."""
    parser = argparse.ArgumentParser(prog="python -m tidemill.front", description="Started by `tidemill serve`.")
    parser.add_argument("--link", type=int, required=True, help="descriptor of the link to the owner")
    parser.add_argument("--listen", type=int, action="append", default=[], help="descriptor of a listening socket")
    parser.add_argument("--bounds", type=int, nargs=3, required=True, help="those of the link: `wire.peer.Bounds`")
    given = parser.parse_args()
    link = socket.socket(fileno=given.link)
    uvloop.run(run(link, Bounds(*given.bounds), [socket.socket(fileno=each) for each in given.listen]))


if __name__ == "__main__":
    main()
