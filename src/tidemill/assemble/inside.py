"""Unix sockets at which a service under TLS answers in the clear, for its own parts alone; belongs to the owner.

They lie in a folder that only this user enters. The console asks the admin API there, so no certificate has to fit an
address of this machine and none of a client is needed; and the ports that take both REST and gRPC pass gRPC on there,
after TLS has ended with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from pathlib import Path

from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings
from tidemill.doors.head import ASGIApp
from tidemill.doors.listen import HttpServer

STOP_S_MAX = 1.0


class Inside:
    """Life: built, `serve`, `close`. `http` and `grpc` are the sockets' paths, once it serves."""

    def __init__(self) -> None:
        self._folder = Path("nowhere")
        self._server: HttpServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def http(self) -> Path:
        return self._folder / "http"

    @property
    def grpc(self) -> Path:
        return self._folder / "grpc"

    async def serve(self, app: ASGIApp, settings: Settings, failures: dict[str, int]) -> None:
        """Answer at `http`, with the same limits as outside. Raises `InvalidSetting` where no socket can be made."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="tidemill-"))  # for this user alone
            listener.bind(str(self.http))
        except OSError as error:
            listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise InvalidSetting(
                f"no Unix socket can be made in {tempfile.gettempdir()}: {error}; TMPDIR names another folder"
            ) from error
        listener.setblocking(False)
        self._server = HttpServer(app, settings, failures)
        self._tasks = [
            asyncio.create_task(self._server.serve(sockets=[listener])),
            asyncio.create_task(self._server.sweep()),
        ]

    async def close(self) -> None:
        if self._server is not None:
            self._server.should_exit = self._server.force_exit = True
            serving, sweeping = self._tasks
            sweeping.cancel()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(serving, STOP_S_MAX)
            shutil.rmtree(self._folder, ignore_errors=True)
