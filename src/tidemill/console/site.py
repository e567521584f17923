"""The web server of the console: routes, headers, and NiceGUI's settings; runs in the console's process."""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# NiceGUI reads these while it is imported. Nothing is stored; the path keeps it from looking into the working folder.
os.environ["NICEGUI_STORAGE_PATH"] = str(Path(tempfile.gettempdir()) / f"tidemill-console-{secrets.token_hex(8)}")
os.environ.pop("NICEGUI_REDIS_URL", None)

from nicegui import app, ui
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidemill.console.api import Pollers, client
from tidemill.console.pages.overview import MARK, OverviewPage
from tidemill.core.certificates import Renewal

HEADERS = {
    # NiceGUI compiles its templates in the browser, hence 'unsafe-eval'; nothing may come from or go to another host.
    b"content-security-policy": b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Headers:
    """Adds `HEADERS` to every reply."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        await self._inner(scope, receive, with_headers)


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
) -> None:
    """Serve the pages until the process ends, over TLS with the certificates of `renewal`.

    `on_start` runs when the server has taken the signals for itself; `inside` is the service's Unix socket.
    """
    pollers = Pollers(client(api, inside))
    secured = {} if renewal is None else {"ssl_context_factory": lambda *_: Renewed(renewal)}

    def overview() -> None:
        OverviewPage(pollers, api).build()

    def compression() -> None:
        OverviewPage(pollers, api, "Compression").build()

    ui.page("/")(overview)
    ui.page("/console")(overview)
    ui.page("/compression")(compression)
    app.on_startup(on_start)
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
        message_history_length=30,  # a message carries whole charts; a browser away for longer loads the page anew
        uvicorn_logging_level="warning",
        **secured,
    )
