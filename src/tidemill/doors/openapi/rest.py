"""`/openapi.json`; runs on the owner's loop."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill.doors.json_values import render
from tidemill.doors.openapi.document import document
from tidemill.doors.openapi.operations import OPERATIONS


def routes() -> list[Route]:
    rendered = render(document(OPERATIONS))

    async def answer(request: Request) -> Response:
        return Response(rendered, media_type="application/json")

    return [Route("/openapi.json", answer, methods=["GET"])]
