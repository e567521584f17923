"""A service of a verb's own (`bench`, `chat`): one model on free ports, ended with the verb; runs in its process."""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tidemill.core.errors import ServerRefused

START_S_MAX = 180.0
STOP_S_MAX = 20.0
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class OwnService:
    """Where it listens, and its process."""

    http_url: str
    grpc_address: str
    pid: int


@contextlib.contextmanager
def own_service(model: str, flags: Sequence[str], verb: str) -> Iterator[OwnService]:
    """`tidemill serve MODEL` with `flags`, on loopback, without keys, with a data folder that is thrown away and bears
    the name of `verb`.

    Raises `ServerRefused` with the end of its log when it does not get ready. Ends it in any case, on SIGTERM too.
    """
    with tempfile.TemporaryDirectory(prefix=f"tidemill-{verb}-") as folder, _sigterm_unwinds():
        command = [
            sys.executable, "-m", "tidemill", "serve", model, "--http-port", "0", "--grpc-port", "0", "--no-console",
            "--no-auth", "--data-dir", folder, "--json", *flags,
        ]  # fmt: skip
        with (Path(folder) / "log").open("wb") as log:
            # A group of its own: Ctrl-C reaches the verb alone, which ends the service in its order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            line = _first_line(process.stdout)
            if not line:
                raise ServerRefused(f"the service for {model!r} did not get ready:\n{_tail(Path(folder) / 'log')}")
            told = json.loads(line)
            yield OwnService(told["http_url"], told["grpc_address"], process.pid)
        finally:
            _end(process)


def _first_line(stream: IO[bytes]) -> bytes:
    """b"" when it ended, or took too long."""
    until = time.monotonic() + START_S_MAX
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                return b""
            part = stream.read1(65536)  # type: ignore[attr-defined]
            if not part:
                return b""
            said += part
    return said


def _tail(file: Path) -> str:
    return "\n".join(file.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM leaves through every `finally`, as Ctrl-C does."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
