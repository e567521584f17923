"""KServe V2 over REST, all but `infer`, which is a hot route (`dialect.py`); runs on the owner's loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill import __version__
from tidemill.core.contracts import Served
from tidemill.core.errors import MalformedRequest, ModelNotReady, NotOffered
from tidemill.core.text import short
from tidemill.doors.framework import caller, problem, reply
from tidemill.doors.head import read_body
from tidemill.doors.json_values import parse
from tidemill.doors.kserve import model_config, repository, statistics, translate
from tidemill.doors.kserve.extensions import REFUSED, extensions
from tidemill.doors.way import version_of
from tidemill.serve.answer import Service


def routes(
    service: Service, not_ready: Callable[[], list[str]], request_timeout_s: float, body_bytes_max: int
) -> list[Route]:
    """`not_ready` gives the reasons why the service is not, none when it is."""

    async def server(request: Request) -> Response:
        return reply({"name": "tidemill", "version": __version__, "extensions": extensions(service)})

    async def live(request: Request) -> Response:
        return reply({"live": True})

    async def ready(request: Request) -> Response:
        reasons = not_ready()
        return reply({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def model_ready(request: Request) -> Response:
        caller(service, request)
        try:
            found = _find(service, request)
        except ModelNotReady as error:
            return problem(error)
        return reply({"name": found.name, "ready": True})

    async def model(request: Request) -> Response:
        caller(service, request)
        found = _find(service, request)
        return reply(translate.metadata(found.name, [found.version], found.platform, found.signature))

    async def config(request: Request) -> Response:
        caller(service, request)
        found = _find(service, request)
        return reply(model_config.told(found, repository.policy(service, found.name), request_timeout_s))

    async def stats(request: Request) -> Response:
        caller(service, request)
        name = request.path_params.get("name", "")
        found = statistics.chosen(service.fleet, name, version_of(name, request.path_params.get("version")))
        return reply(statistics.told(found))

    async def index(request: Request) -> Response:
        caller(service, request, admin=True)
        asked = await _object(request, body_bytes_max)
        return reply(repository.index(service, _ready(asked)))

    async def load(request: Request) -> Response:
        caller(service, request, admin=True)
        asked = await _object(request, body_bytes_max)
        await repository.load(service, request.path_params["name"], _parameters(asked))
        return Response()

    async def unload(request: Request) -> Response:
        caller(service, request, admin=True)
        asked = await _object(request, body_bytes_max)
        await repository.unload(service, request.path_params["name"], _parameters(asked))
        return Response()

    read = {
        "/v2": server,
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        "/v2/models/stats": stats,
        "/v2/models/{name}": model,
        "/v2/models/{name}/ready": model_ready,
        "/v2/models/{name}/config": config,
        "/v2/models/{name}/stats": stats,
        "/v2/models/{name}/versions/{version}": model,
        "/v2/models/{name}/versions/{version}/ready": model_ready,
        "/v2/models/{name}/versions/{version}/config": config,
        "/v2/models/{name}/versions/{version}/stats": stats,
    }
    written = {
        "/v2/repository/index": index,
        "/v2/repository/models/{name}/load": load,
        "/v2/repository/models/{name}/unload": unload,
    }
    return [
        *(Route(path, endpoint, methods=["GET"]) for path, endpoint in read.items()),
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in written.items()),
        *(
            Route(path, _refusal(service, words), methods=["GET", "POST"])
            for words, paths in REFUSED_PATHS.items()
            for path in paths
        ),
    ]


REFUSED_PATHS = {
    REFUSED["SystemSharedMemory"]: ("/v2/systemsharedmemory/{rest:path}",),
    REFUSED["CudaSharedMemory"]: ("/v2/cudasharedmemory/{rest:path}",),
    REFUSED["TraceSetting"]: ("/v2/trace/setting", "/v2/models/{name}/trace/setting"),
    REFUSED["LogSettings"]: ("/v2/logging",),
}
"""What this service does not offer of V2 -> the addresses where Triton has it."""


def _refusal(service: Service, words: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(request: Request) -> Response:
        caller(service, request)
        raise NotOffered(words)

    return refuse


def _find(service: Service, request: Request) -> Served:
    name = request.path_params["name"]
    return service.fleet.find(name, version_of(name, request.path_params.get("version")))


async def _object(request: Request, body_bytes_max: int) -> dict[str, Any]:
    """The body as an object of JSON, empty for none. Raises `MalformedRequest`, `RequestTooLarge`."""
    body = await read_body(request.receive, body_bytes_max)
    asked = parse(body) if body else {}
    if not isinstance(asked, dict):
        raise MalformedRequest(f"the body is {short(asked)}, expected an object")
    return asked


def _ready(asked: dict[str, Any]) -> bool:
    ready = asked.get("ready", False)
    if type(ready) is not bool:
        raise MalformedRequest(f"ready is {short(ready)}, expected true or false")
    return ready


def _parameters(asked: dict[str, Any]) -> dict[str, Any]:
    parameters = asked.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"parameters is {short(parameters)}, expected an object")
    return parameters
