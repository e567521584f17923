"""What stands before every page: headers on each reply, a bound on each upload; runs in the console's process."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    # NiceGUI compiles its templates in the browser, hence 'unsafe-eval'; nothing may come from or go to another host.
    b"content-security-policy": b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


FORM_BYTES_MAX = 65_536
"""What a form wraps around a file."""


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


class Bounded:
    """Refuses what a browser uploads where it is longer than `bytes_max`, or does not say how long it is."""

    def __init__(self, inner: ASGIApp, bytes_max: int) -> None:
        self._inner = inner
        self._bytes_max = bytes_max + FORM_BYTES_MAX

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            said = dict(scope["headers"]).get(b"content-length", b"")
            if not said.isdigit() or int(said) > self._bytes_max:
                status = 413 if said.isdigit() else 411
                await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
                return
        await self._inner(scope, receive, send)
