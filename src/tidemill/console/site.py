"""The web server of the console: routes, headers, and NiceGUI's settings; runs in the console's process."""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

# NiceGUI reads these while it is imported. Nothing is stored; the path keeps it from looking into the working folder.
os.environ["NICEGUI_STORAGE_PATH"] = str(Path(tempfile.gettempdir()) / f"tidemill-console-{secrets.token_hex(8)}")
os.environ.pop("NICEGUI_REDIS_URL", None)

from nicegui import app, ui

from tidemill.console.api import Pollers
from tidemill.console.asking import client
from tidemill.console.guards import Bounded, Headers
from tidemill.console.pages.overview import MARK, OverviewPage
from tidemill.core.certificates import Renewal

RECONNECT_S = 30.0
"""A page whose connection broke for no longer goes on where it was, its key with it."""
MESSAGES_KEPT = 200
"""For a browser that was away, or too busy to answer: some `RECONNECT_S` of an answer that grows. A page that missed
more is loaded anew, and its conversation is lost."""


class Renewed(ssl.SSLContext):
    """Stands for the certificates that are current: each connection takes its TLS from a context of them."""

    def __new__(cls, renewal: Renewal) -> Renewed:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._renewal = renewal
        made._current = renewal.current.context()
        return made

    _renewal: Renewal
    _current: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **more: Any) -> ssl.SSLObject:
        if self._renewal.look():
            self._current = self._renewal.current.context()
        return self._current.wrap_bio(*arguments, **more)


def serve(
    api: str,
    host: str,
    port: int,
    on_start: Callable[[], None],
    renewal: Renewal | None = None,
    inside: Path | None = None,
    upload_bytes_max: int = 64 * 2**20,
) -> None:
    """Serve the pages until the process ends, over TLS with the certificates of `renewal`.

    `on_start` runs when the server has taken the signals for itself; `inside` is the service's Unix socket.
    """
    pollers = Pollers(client(api, inside))
    secured = {} if renewal is None else {"ssl_context_factory": lambda *_: Renewed(renewal)}

    def page(address: str) -> None:
        OverviewPage(pollers, api, upload_bytes_max, address).build()

    def model(name: str) -> None:
        page(f"/models/{quote(name, safe='')}")

    for address in ("/", "/console", "/models", "/compression"):
        ui.page(address)(partial(page, address))
    ui.page("/models/{name}")(model)
    app.on_startup(on_start)
    app.add_middleware(Bounded, bytes_max=upload_bytes_max)
    app.add_middleware(Headers)
    # No storage secret: nothing is kept of a visitor, so no cookie is set that another program on this host might meet.
    ui.run(
        host=host,
        port=port,
        title="Tidemill",
        favicon=MARK,
        dark=None,
        reload=False,
        show=False,
        show_welcome_message=False,
        tailwind=False,
        reconnect_timeout=RECONNECT_S,
        message_history_length=MESSAGES_KEPT,
        uvicorn_logging_level="warning",
        **secured,
    )
