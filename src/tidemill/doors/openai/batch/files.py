"""`/v1/files`: what callers bring for batches, and what batches write; runs on the owner's loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from tidemill.core.errors import MissingInput, NotOffered, RequestCancelled, RequestTooLarge, TenantFull, WrongValue
from tidemill.core.request import Caller
from tidemill.core.text import short
from tidemill.doors.framework import Handler as Endpoint
from tidemill.doors.framework import caller, reply
from tidemill.doors.openai.batch.asking import Callers, page
from tidemill.doors.openai.batch.bounds import FILES_LIST_MAX
from tidemill.doors.openai.batch.desk import Desk
from tidemill.doors.openai.batch.form import Form
from tidemill.doors.openai.batch.shelf import Upload
from tidemill.store import batches
from tidemill.store.batches import FileRow

WRITE_BYTES: Final = 256 * 1024
"""So much of a file is gathered before it is written."""
FORM_BYTES: Final = 64 * 1024
"""What a form may have besides its file."""


def endpoints(desk: Desk, callers: Callers) -> tuple[Endpoint, ...]:
    """In the order of `rest.PATHS`."""

    async def send(request: Request) -> Response:
        asker = caller(desk.service, request, body_bytes_max=desk.bounds.file_bytes_max + FORM_BYTES)
        return reply(told(await _received(desk, asker, request)))

    async def index(request: Request) -> Response:
        asker = callers(request)
        after, limit, newest_first = page(request, FILES_LIST_MAX, FILES_LIST_MAX)
        purpose = request.query_params.get("purpose", "")
        rows = await desk.shelf.ask(batches.files, asker.tenant, purpose, after, limit + 1, newest_first)
        return reply(listed([told(row) for row in rows], limit))

    async def one(request: Request) -> Response:
        return reply(told(await desk.file(callers(request), request.path_params["file_id"])))

    async def content(request: Request) -> Response:
        row = await desk.file(callers(request), request.path_params["file_id"])
        return FileResponse(desk.shelf.path(row.id), media_type="application/octet-stream", filename=row.name)

    async def remove(request: Request) -> Response:
        file_id = request.path_params["file_id"]
        await desk.remove_file(callers(request), file_id)
        return reply({"id": file_id, "object": "file", "deleted": True})

    return send, index, one, content, remove


def told(row: FileRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.size_bytes,
        "created_at": row.created_at,
        "expires_at": None,
        "filename": row.name,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


def listed(rows: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of at most `limit`; one row more says that there are more."""
    data = rows[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


async def _received(desk: Desk, asker: Caller, request: Request) -> FileRow:
    """The file that a form brings, whole and durable. Raises what `Form` raises, `RequestTooLarge`, `TenantFull`."""
    bounds = desk.bounds
    form = Form(request.headers.get("content-type", ""))
    count, size_bytes = await desk.shelf.ask(batches.file_totals, asker.tenant)
    room = bounds.files_bytes_max - size_bytes
    if count >= bounds.files_max or room <= 0:
        raise _full(desk)
    async with desk.shelf.upload() as upload:
        await _stream(request, form, upload, bounds.file_bytes_max)
        _check(form, upload)
        await asyncio.to_thread(upload.keep)
        row = FileRow(
            upload.id, asker.tenant, form.file_name or "", form.fields["purpose"], upload.size_bytes, int(time.time())
        )
        if not await desk.shelf.ask(batches.add_file, row, bounds.files_max, bounds.files_bytes_max):
            await desk.shelf.remove(upload.id)
            raise _full(desk)
    return row


async def _stream(request: Request, form: Form, upload: Upload, bytes_max: int) -> None:
    gathered: list[bytes] = []
    size = whole = 0
    try:
        async for part in request.stream():
            whole += len(part)
            found = form.feed(part)
            gathered.append(found)
            size += len(found)
            if upload.size_bytes + size > bytes_max or whole > bytes_max + FORM_BYTES:
                raise RequestTooLarge(f"the file has more than {bytes_max} bytes (--file-bytes-max, --body-bytes-max)")
            if size >= WRITE_BYTES:
                await asyncio.to_thread(upload.write, b"".join(gathered))
                gathered, size = [], 0
    except ClientDisconnect as error:
        raise RequestCancelled("the caller went away before the file was whole") from error
    form.end()
    await asyncio.to_thread(upload.write, b"".join(gathered))


def _check(form: Form, upload: Upload) -> None:
    purpose = form.fields.pop("purpose", None)
    if purpose is None:
        raise MissingInput("purpose is missing: curl -F purpose=batch -F file=@requests.jsonl", param="purpose")
    if purpose != "batch":
        raise NotOffered(f"purpose is {short(purpose)}: files are taken for batches alone", param="purpose")
    for other in form.fields:
        raise NotOffered(f"{other} is not offered: a file stays until it is deleted", param=other)
    if not upload.size_bytes:
        raise WrongValue("the file is empty", param="file")
    form.fields["purpose"] = purpose


def _full(desk: Desk) -> TenantFull:
    bounds = desk.bounds
    return TenantFull(
        f"the most allowed are {bounds.files_max} files (--files-max) and {bounds.files_bytes_max} bytes"
        " (--files-bytes-max) together; delete some"
    )
