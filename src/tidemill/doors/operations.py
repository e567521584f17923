"""What operators' tools ask: `/metrics`, `/healthz`, `/readyz`, `/console`; runs on the owner's loop."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tidemill.core.errors import MissingPart
from tidemill.doors.framework import reply

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes(
    metrics: Callable[[], bytes],
    not_ready: Callable[[], list[str]],
    console_port: Callable[[], int],
    metrics_path: str = "",
) -> list[Route]:
    """`not_ready` gives the reasons, none when ready; `console_port` is 0 while there is no console; `metrics_path`
    answers as `/metrics` does."""

    async def healthz(request: Request) -> Response:
        return reply({"status": "alive"})

    async def readyz(request: Request) -> Response:
        reasons = not_ready()
        return reply({"status": "not ready" if reasons else "ready", "reasons": reasons}, 503 if reasons else 200)

    async def scrape(request: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    async def console(request: Request) -> Response:
        port = console_port()
        if not port:
            raise MissingPart("no console runs here: pip install 'tidemill[console]' and start without --no-console")
        host = request.url.hostname or "127.0.0.1"
        return RedirectResponse(f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{port}/")

    paths = {"/healthz": healthz, "/readyz": readyz, "/metrics": scrape, "/console": console, "/console/": console}
    if metrics_path:
        paths.setdefault(metrics_path, scrape)
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in paths.items()]
