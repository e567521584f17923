"""All REST doors as one ASGI application; built once in the owner process."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from tidemill.core.errors import TidemillError
from tidemill.core.settings import Settings
from tidemill.doors import admin, framework, operations, trying
from tidemill.doors.admin import Administration
from tidemill.doors.head import Receive, Scope, Send
from tidemill.doors.hot import Doors
from tidemill.doors.kserve import generate
from tidemill.doors.kserve import rest as kserve
from tidemill.doors.openai import rest as openai
from tidemill.doors.openai.batch import rest as batch
from tidemill.doors.openai.batch.desk import Desk
from tidemill.doors.openapi import rest as openapi
from tidemill.doors.tfserving import rest as tfserving
from tidemill.serve.answer import Service


def build(
    service: Service,
    administration: Administration,
    metrics: Callable[[], bytes],
    not_ready: Callable[[], list[str]],
    console_port: Callable[[], int],
    settings: Settings,
    desk: Desk | None = None,
) -> Doors:
    """`metrics` renders Prometheus' text; `not_ready` gives reasons; `console_port` is 0 while there is no console.

    `desk` is None where no batches are run."""

    async def predict(model: str, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        await doors.predict(model, version, scope, receive, send)

    routes = [
        *kserve.routes(service, not_ready, settings.request_timeout_ms / 1000, settings.body_bytes_max),
        *tfserving.routes(service),
        *openai.routes(service, settings),
        *batch.routes(service, desk),
        *generate.routes(service, settings),
        *operations.routes(metrics, not_ready, console_port, settings.metrics_path),
        *admin.routes(service, administration),
        trying.route(service, predict, settings.body_bytes_max),
        trying.chat_route(service, settings),
        *openapi.routes(),
    ]
    others = Starlette(
        routes=routes,
        exception_handlers={
            TidemillError: framework.on_tidemill_error,
            HTTPException: framework.on_http_exception,
            Exception: framework.on_any_error,
        },
    )
    doors = Doors(service, others, settings)
    return doors
