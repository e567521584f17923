"""`POST /admin/v1/models/{name}/try`: `:predict` for the console, which speaks to the admin API alone; owner's loop.

Beyond the admin key it is `:predict`: the request goes on to the hot route's own code, as it came.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.routing import Route

from tidemill.doors.framework import caller
from tidemill.doors.head import Receive, Scope, Send
from tidemill.serve.answer import Service

PATH = "/admin/v1/models/{name}/try"


class Predict(Protocol):
    """`Doors.predict`: answers the whole request."""

    async def __call__(self, model: str, version: str | None, scope: Scope, receive: Receive, send: Send) -> None: ...


class Trying:
    """An ASGI application of its own, so that nothing reads the body before the hot route does."""

    def __init__(self, service: Service, predict: Predict, body_bytes_max: int) -> None:
        self._service = service
        self._predict = predict
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        caller(self._service, request, admin=True, body_bytes_max=self._body_bytes_max)
        version = request.query_params.get("version")
        await self._predict(request.path_params["name"], version, scope, receive, send)


def route(service: Service, predict: Predict, body_bytes_max: int) -> Route:
    return Route(PATH, Trying(service, predict, body_bytes_max), methods=["POST"])
