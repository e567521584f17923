"""`/v1/batches`, and with it all addresses of files and batches; runs on the owner's loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.request import Caller
from tidemill.core.text import short
from tidemill.doors.framework import SMALL_BODY_BYTES_MAX, Handler, caller, reply
from tidemill.doors.head import read_body
from tidemill.doors.openai.batch import files
from tidemill.doors.openai.batch.asking import page
from tidemill.doors.openai.batch.bounds import LIST_MAX, seconds
from tidemill.doors.openai.batch.desk import Desk, unknown_file
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX
from tidemill.doors.openai.common import harmless
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.json_body import parse
from tidemill.doors.way import fresh_request_id
from tidemill.serve.answer import Service
from tidemill.store.batches import BatchRow

PATHS: Final = (
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/{file_id}"),
    ("GET", "/v1/files/{file_id}/content"),
    ("DELETE", "/v1/files/{file_id}"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/batches/{batch_id}"),
    ("POST", "/v1/batches/{batch_id}/cancel"),
)


def routes(service: Service, desk: Desk | None) -> list[Route]:
    """Without a desk every address refuses."""

    def callers(request: Request) -> Caller:
        return caller(service, request)

    async def refuse(request: Request) -> Response:
        callers(request)
        raise NotOffered("this service keeps no files and runs no batches")

    if desk is None:
        return _routes([refuse] * len(PATHS))

    async def create(request: Request) -> Response:
        asker = callers(request)
        fields = Fields(parse(await read_body(request.receive, SMALL_BODY_BYTES_MAX)), lax=desk.limits.lax)
        row = read(fields, asker, desk)
        found = await desk.file(asker, row.input_file, "input_file_id")
        if found.purpose != "batch":
            raise unknown_file(row.input_file, "input_file_id")
        return reply(told(await desk.add(row)))

    async def index(request: Request) -> Response:
        asker = callers(request)
        after, limit, _ = page(request, 20, LIST_MAX)
        rows = await desk.list(asker.tenant, after, limit + 1)
        return reply(files.listed([told(row) for row in rows], limit))

    async def one(request: Request) -> Response:
        return reply(told(await desk.find(callers(request), request.path_params["batch_id"])))

    async def cancel(request: Request) -> Response:
        return reply(told(await desk.cancel(callers(request), request.path_params["batch_id"])))

    endpoints = (*files.endpoints(desk, callers), create, index, one, cancel)
    return _routes(endpoints)


def _routes(endpoints: Sequence[Handler]) -> list[Route]:
    """One for each address, so that a method which is not taken is told those that are."""
    places: dict[str, dict[str, Handler]] = {}
    for (method, path), endpoint in zip(PATHS, endpoints, strict=True):
        places.setdefault(path, {})[method] = endpoint
    return [Route(path, _by_method(taken), methods=list(taken)) for path, taken in places.items()]


def _by_method(taken: Mapping[str, Handler]) -> Handler:
    async def answer(request: Request) -> Response:
        return await taken["GET" if request.method == "HEAD" else request.method](request)

    return answer


def read(fields: Fields, asker: Caller, desk: Desk) -> BatchRow:
    """A new batch. Raises the errors of `Fields`, each with its `param`."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        fields.needed(name)
    input_file = fields.text("input_file_id", NAME_CHARACTERS_MAX) or ""
    endpoint = fields.word("endpoint", tuple(desk.kinds), "")
    window = fields.text("completion_window", 16) or ""
    window_s = seconds(window)
    if window_s is None or not 1 <= window_s <= desk.bounds.window_s_max:
        most = desk.bounds.window_s_max
        raise WrongValue(
            f"completion_window is {short(window)}, expected a time such as 24h, of {most} s at most"
            " (--batch-window-s-max)",
            param="completion_window",
        )
    fields.refuse("output_expires_after", "what a batch wrote stays until it is deleted")
    metadata = harmless(fields)
    fields.end()
    now = int(time.time())
    return BatchRow(
        id=f"batch_{fresh_request_id()}",
        tenant=asker.tenant,
        key=asker.key,
        endpoint=endpoint,
        input_file=input_file,
        window=window,
        expires_at=now + window_s,
        state="validating",
        times={"validating": now},
        metadata=metadata,
    )


def told(row: BatchRow) -> dict[str, Any]:
    """OpenAI's object."""
    failure = row.failure
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": failure and {"object": "list", "data": [{**failure, "line": None, "param": None}]},
        "input_file_id": row.input_file,
        "completion_window": row.window,
        "status": row.state,
        "output_file_id": row.output_file or None,
        "error_file_id": row.error_file or None,
        "created_at": row.times["validating"],
        "expires_at": row.expires_at,
        **{
            f"{state}_at": row.times.get(state)
            for state in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        },
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "metadata": row.metadata or None,
    }
