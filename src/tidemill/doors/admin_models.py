"""The admin API's part for models: the index, loading, unloading and labels; runs on the owner's loop.

Guarded by `admin.py`, which wants an admin key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill.core.contracts import Models
from tidemill.core.errors import MalformedRequest, NotOffered
from tidemill.doors.framework import SMALL_BODY_BYTES_MAX, reply
from tidemill.doors.head import read_body
from tidemill.serve.answer import Service

Endpoint = Callable[[Request], Awaitable[Response]]


class ModelAdministration(Protocol):
    """What the admin API can tell of models beyond `Models`, and the labels that it moves; belongs to the loop."""

    def models(self) -> Sequence[dict[str, Any]]: ...

    async def label(self, name: str, label: str, version: int) -> None: ...


class Pointing(msgspec.Struct, forbid_unknown_fields=True):
    version: int


def routes(
    service: Service, administration: ModelAdministration, guarded: Callable[[Endpoint], Endpoint]
) -> list[Route]:
    async def index(request: Request) -> Response:
        return reply({"models": list(administration.models())})

    async def load(request: Request) -> Response:
        return await _done(request, _models(service).load)

    async def unload(request: Request) -> Response:
        return await _done(request, _models(service).unload)

    async def label(request: Request) -> Response:
        try:
            told = msgspec.json.decode(await read_body(request.receive, SMALL_BODY_BYTES_MAX), type=Pointing)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedRequest(f"the body is expected to be {{version}}: {error}") from error
        name, word = request.path_params["name"], request.path_params["label"]
        await administration.label(name, word, told.version)
        return reply({"name": name, "label": word, "version": told.version})

    async def _done(request: Request, operation: Callable[[str], Awaitable[None]]) -> Response:
        name = request.path_params["name"]
        await operation(name)
        told = [each for each in administration.models() if each["name"] == name]
        return reply(told[0] if told else {"name": name, "versions": []})

    return [
        Route("/admin/v1/models", guarded(index), methods=["GET"]),
        Route("/admin/v1/models/{name}/load", guarded(load), methods=["POST"]),
        Route("/admin/v1/models/{name}/unload", guarded(unload), methods=["POST"]),
        Route("/admin/v1/models/{name}/labels/{label}", guarded(label), methods=["PUT"]),
    ]


def _models(service: Service) -> Models:
    if service.models is None:
        raise NotOffered("this service loads and unloads no models while it runs")
    return service.models
