"""TensorFlow Serving's status and metadata over REST; `predict` is a hot route (`dialect.py`). Runs on the owner's
loop."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill.core.errors import UnknownRoute, UnknownVersion
from tidemill.doors.framework import caller, reply
from tidemill.doors.tfserving import translate
from tidemill.doors.way import version_of
from tidemill.serve.answer import Service


def routes(service: Service) -> list[Route]:
    created_s = int(time.time())

    async def status(request: Request) -> Response:
        caller(service, request)
        name = request.path_params["name"]
        version = version_of(name, request.path_params.get("version"))
        found = [
            (each.version, each.state, each.reason)
            for each in service.fleet.versions(name)
            if version in (None, each.version)
        ]
        if not found:
            raise UnknownVersion(f"model {name!r} has no version {version}")
        return reply(translate.status(name, found, created_s))

    async def metadata(request: Request) -> Response:
        caller(service, request)
        name = request.path_params["name"]
        found = service.fleet.find(name, version_of(name, request.path_params.get("version")))
        return reply(translate.metadata(found.name, found.version, found.signature))

    async def verb(request: Request) -> Response:
        raise UnknownRoute(f"there is nothing to ask at {request.url.path}; `:predict` is what a model is asked")

    paths = {
        "/v1/models/{name}": status,
        "/v1/models/{name}/versions/{version}": status,
        "/v1/models/{name}/metadata": metadata,
        "/v1/models/{name}/versions/{version}/metadata": metadata,
    }
    verbs = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}")
    return [
        *(Route(path, endpoint, methods=["GET"]) for path, endpoint in paths.items()),
        *(Route(path, verb, methods=["POST"]) for path in verbs),
    ]
