"""Starts and ends the console's own process; belongs to the owner."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tidemill.core.certificates import Paths
from tidemill.core.settings import Settings
from tidemill.doors.listen import bind

log = logging.getLogger(__name__)

STOP_S_MAX = 3.0


class ConsoleProcess:
    """`port` is 0 while there is no console. It watches its parent, so a killed owner leaves none behind."""

    def __init__(self, settings: Settings, certificates: Paths | None = None) -> None:
        """With `certificates` its port speaks TLS as the service's do. Raises `InvalidSetting` for a port that is
        taken: better now than when all models have loaded."""
        self._settings = settings
        self._certificates = certificates
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._wanted = not settings.no_console and find_spec("nicegui") is not None
        if self._wanted and settings.console_port:
            self._bound().close()

    def _bound(self) -> socket.socket:
        return bind(self._settings.host, self._settings.console_port, "--console-port, or leave it out by --no-console")

    def start(self, api_url: str, inside: Path | None = None) -> None:
        """`inside` is a Unix socket at which the service answers in the clear. Raises `InvalidSetting` for a port that
        is taken."""
        settings = self._settings
        if not self._wanted:
            if not settings.no_console:
                log.info("no console: pip install 'tidemill[console]' brings it")
            return
        with self._bound() as free:
            self.port = int(free.getsockname()[1])
        command = [sys.executable, "-m", "tidemill.console", "--api", api_url, "--host", settings.host]
        command += ["--port", str(self.port), "--parent", str(os.getpid())]
        command += ["--body-bytes-max", str(settings.body_bytes_max)]
        if inside is not None:
            command += ["--inside", str(inside)]
        if self._certificates is not None:
            command += [f"--{word}={value}" for word, value in self._certificates.words() if value]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
