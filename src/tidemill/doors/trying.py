"""`POST /admin/v1/models/{name}/try` and `.../chat`: `:predict` and a chat for the console, which knows no other door;
owner's loop.

Beyond the admin key they are what any caller may ask: the request goes on to the other door's own code, as it came.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.routing import Route

from tidemill.core.contracts import Served
from tidemill.core.settings import Settings
from tidemill.core.text import short
from tidemill.doors.framework import caller
from tidemill.doors.head import Receive, Scope, Send
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX, limits
from tidemill.doors.openai.door import Door, Kind
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.rest import read_chat
from tidemill.doors.way import version_of
from tidemill.serve.answer import Service

PATH = "/admin/v1/models/{name}/try"
CHAT_PATH = "/admin/v1/models/{name}/chat"


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


class Chatting:
    """As `Trying`, before the door of chats."""

    def __init__(self, service: Service, chat: Door, body_bytes_max: int) -> None:
        self._service = service
        self._chat = chat
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller(self._service, Request(scope), admin=True, body_bytes_max=self._body_bytes_max)
        await self._chat(scope, receive, send)


def chat_route(service: Service, settings: Settings) -> Route:
    """The body is that of `/v1/chat/completions`; its `model` may be left out, and must be the address's otherwise."""

    def find(scope: Scope, fields: Fields) -> tuple[str, Served]:
        name: str = scope["path_params"]["name"]
        told = fields.text("model", NAME_CHARACTERS_MAX)
        if told and told != name:
            raise fields.wrong("model", f"is {short(told)}, and the address says {short(name)}")
        version = version_of(name, Request(scope).query_params.get("version"))
        return name, service.fleet.find(name, version)

    bounds = limits(settings)
    door = Door(service, Kind(read_chat, find, "messages"), bounds, settings.access_log)
    return Route(CHAT_PATH, Chatting(service, door, bounds.body_bytes_max), methods=["POST"])


def route(service: Service, predict: Predict, body_bytes_max: int) -> Route:
    return Route(PATH, Trying(service, predict, body_bytes_max), methods=["POST"])
