"""`python -m tidemill.console`: the console's process; ends at once on SIGTERM, or with the parent it was told of."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import httpx

from tidemill.core.certificates import Paths, Renewal


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Exits with 2 and a message on misuse."""
    parser = argparse.ArgumentParser(prog="python -m tidemill.console", description="A live page over the admin API.")
    parser.add_argument("--api", default="http://127.0.0.1:8000", type=_url, help="URL of the service")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=8002, type=_port, help="port to listen on")
    parser.add_argument("--inside", type=Path, metavar="SOCKET", help="Unix socket at which the service answers too")
    parser.add_argument("--body-bytes-max", default=64 * 2**20, type=int, help="file to try a model with at most")
    for word, value in Paths().words():
        parser.add_argument(f"--{word}", default=value, metavar="FILE", help="as for the service")
    parser.add_argument("--parent", type=int, metavar="PID", help="exit when this process has ended")
    return parser.parse_args(given)


def _url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL of a service; expected http://HOST:PORT")
    return text.rstrip("/")


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 1 to 65535")
    return int(text)


def end_on_signals() -> None:
    """Nothing here wants saving, so the process just ends."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def main() -> None:
    """Serve until told to end."""
    given = arguments()
    end_on_signals()
    if given.parent is not None:
        from tidemill.console import parent

        parent.watch(given.parent)
    try:
        from tidemill.console import site
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "tidemill":
            raise
        sys.exit(f"the console needs {missing.name}: pip install 'tidemill[console]'")
    paths = Paths(given.tls_cert, given.tls_key, given.tls_client_ca, given.ssl_config_file)
    renewal = Renewal(paths) if paths.files() else None
    site.serve(given.api, given.host, given.port, end_on_signals, renewal, given.inside, given.body_bytes_max)


if __name__ == "__main__":
    main()
