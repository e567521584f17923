"""KServe V2's health and metadata over REST; `infer` is a hot route (`dialect.py`). Runs on the owner's loop."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill import __version__
from tidemill.core.contracts import Served
from tidemill.core.errors import ModelNotReady
from tidemill.doors.framework import caller, problem, reply
from tidemill.doors.kserve import translate
from tidemill.doors.way import version_of
from tidemill.serve.answer import Service

EXTENSIONS = ["binary_tensor_data"]


def routes(service: Service, not_ready: Callable[[], list[str]]) -> list[Route]:
    """`not_ready` gives the reasons why the service is not, none when it is."""

    async def server(request: Request) -> Response:
        return reply({"name": "tidemill", "version": __version__, "extensions": EXTENSIONS})

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

    paths = {
        "/v2": server,
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        "/v2/models/{name}": model,
        "/v2/models/{name}/ready": model_ready,
        "/v2/models/{name}/versions/{version}": model,
        "/v2/models/{name}/versions/{version}/ready": model_ready,
    }
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in paths.items()]


def _find(service: Service, request: Request) -> Served:
    name = request.path_params["name"]
    return service.fleet.find(name, version_of(name, request.path_params.get("version")))
