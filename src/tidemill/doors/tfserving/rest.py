"""TensorFlow Serving's status and metadata over REST; what a model is asked are hot routes (`dialect.py`). Runs on the
owner's loop."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill.core.errors import UnknownModel, UnknownRoute
from tidemill.doors.framework import caller, reply
from tidemill.doors.tfserving import translate
from tidemill.doors.tfserving.dialect import DIALECTS
from tidemill.doors.tfserving.spec import versions
from tidemill.doors.way import alias_of, named, version_of
from tidemill.serve.answer import Service

CHOICES = ("", "/versions/{version}", "/labels/{label}")


def routes(service: Service) -> list[Route]:
    created_s = int(time.time())

    async def status(request: Request) -> Response:
        caller(service, request)
        name, version, label = _asked(request)
        try:
            found = versions(service.fleet, name, version, label)
        except UnknownModel:
            if version is not None or label is not None or "@" not in name:
                raise
            found = [named(service.fleet, name)]  # as OpenAI's clients name a version
        root = found[0].name if alias_of(service.fleet, name) else ""
        return reply(translate.status(name, found, created_s, root))

    async def metadata(request: Request) -> Response:
        caller(service, request)
        found = service.fleet.find(*_asked(request))
        return reply(translate.metadata(found.name, found.version, found.signature))

    async def models(request: Request) -> Response:
        """OpenAI's list, of those that can be asked; TensorFlow Serving has none."""
        caller(service, request)
        fleet = service.fleet
        roots = {each.name: "" for each in fleet.replicas() if each.state == "AVAILABLE"}
        roots |= {alias: name for alias, name in fleet.aliases.items() if name in roots}
        return reply({"object": "list", "data": [translate.model(name, created_s, roots[name]) for name in roots]})

    async def verb(request: Request) -> Response:
        verbs = ", ".join(f":{each}" for each in DIALECTS)
        raise UnknownRoute(f"there is nothing to ask at {request.url.path}; a model is asked for {verbs}")

    paths = [f"/v1/models/{{name}}{choice}" for choice in CHOICES]
    return [
        *(Route(path, models, methods=["GET"]) for path in ("/v1/models", "/v1/models/")),
        *(Route(path, status, methods=["GET"]) for path in paths),
        *(Route(f"{path}/metadata", metadata, methods=["GET"]) for path in paths),
        *(Route(path, verb, methods=["POST"]) for path in paths),
    ]


def _asked(request: Request) -> tuple[str, int | None, str | None]:
    name: str = request.path_params["name"]
    return name, version_of(name, request.path_params.get("version")), request.path_params.get("label")
