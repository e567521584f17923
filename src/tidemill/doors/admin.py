"""The admin API `/admin/v1`: what runs, what was used, where models come from, and keys; runs on the owner's loop.

Wants an admin key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidemill.core.errors import MalformedRequest, UnknownKey, UnknownRoute
from tidemill.doors import admin_models
from tidemill.doors.admin_models import ModelAdministration
from tidemill.doors.framework import SMALL_BODY_BYTES_MAX, caller, reply
from tidemill.doors.head import read_body
from tidemill.serve.answer import Service


class Administration(ModelAdministration, Protocol):
    """What the admin API can do; `assemble` builds it.

    `usage`, `lineage`, `report`, `create_key` and `revoke_key` block, and are called from threads; the others belong to
    the loop.
    """

    def overview(self) -> dict[str, Any]: ...

    def usage(self, tenant: str | None, since_ms: int) -> Sequence[msgspec.Struct]: ...

    async def batches(self) -> Sequence[dict[str, Any]]:
        """The newest ones of every tenant."""

    def lineage(self) -> Sequence[dict[str, Any]]: ...

    def report(self, name: str, version: int, file: str) -> bytes: ...

    def keys(self) -> Sequence[dict[str, Any]]: ...

    def create_key(self, tenant: str, label: str, admin: bool) -> dict[str, Any]: ...

    def revoke_key(self, key_id: str) -> bool: ...

    def keys_changed(self) -> None: ...


REPORT_TYPES = {"report.html": "text/html; charset=utf-8", "report.json": "application/json", "report.png": "image/png"}
REPORT_HEADERS = {
    # Whoever may write into the repository writes this page: it is shown, and nothing in it runs.
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}


class KeyWish(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str
    label: str = ""
    admin: bool = False


def routes(service: Service, administration: Administration) -> list[Route]:
    def guarded(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def checked(request: Request) -> Response:
            caller(service, request, admin=True)
            answered: Response = await endpoint(request)
            return answered

        return checked

    async def overview(request: Request) -> Response:
        return reply(administration.overview())

    async def usage(request: Request) -> Response:
        since = request.query_params.get("since_ms", "0")
        if not (since.isascii() and since.isdigit()) or len(since) > 15:
            raise MalformedRequest(f"since_ms is {since[:40]!r}, expected milliseconds since 1970")
        rows = await asyncio.to_thread(administration.usage, request.query_params.get("tenant"), int(since))
        return reply({"rows": [msgspec.to_builtins(row) for row in rows]})

    async def batches(request: Request) -> Response:
        return reply({"batches": list(await administration.batches())})

    async def lineage(request: Request) -> Response:
        return reply({"models": list(await asyncio.to_thread(administration.lineage))})

    async def report(request: Request) -> Response:
        name, version, file = (request.path_params[each] for each in ("name", "version", "file"))
        if file not in REPORT_TYPES:
            raise UnknownRoute(f"a report has no {file[:40]!r}; it has {', '.join(REPORT_TYPES)}")
        body = await asyncio.to_thread(administration.report, name, version, file)
        return Response(body, 200, headers=REPORT_HEADERS, media_type=REPORT_TYPES[file])

    async def keys(request: Request) -> Response:
        return reply({"keys": list(administration.keys())})

    async def create_key(request: Request) -> Response:
        try:
            wish = msgspec.json.decode(await read_body(request.receive, SMALL_BODY_BYTES_MAX), type=KeyWish)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedRequest(f"the body is expected to be {{tenant, label?, admin?}}: {error}") from error
        made = await asyncio.to_thread(administration.create_key, wish.tenant, wish.label, wish.admin)
        administration.keys_changed()
        return reply(made, 201)

    async def revoke_key(request: Request) -> Response:
        key_id = request.path_params["key_id"]
        found = await asyncio.to_thread(administration.revoke_key, key_id)
        administration.keys_changed()
        if not found:
            raise UnknownKey(f"there is no key {key_id!r}; `tidemill keys ls` lists them")
        return reply({"id": key_id, "revoked": True})

    return [
        Route("/admin/v1/overview", guarded(overview), methods=["GET"]),
        *admin_models.routes(service, administration, guarded),
        Route("/admin/v1/usage", guarded(usage), methods=["GET"]),
        Route("/admin/v1/batches", guarded(batches), methods=["GET"]),
        Route("/admin/v1/lineage", guarded(lineage), methods=["GET"]),
        Route("/admin/v1/lineage/{name}/{version:int}/{file}", guarded(report), methods=["GET"]),
        Route("/admin/v1/keys", guarded(keys), methods=["GET"]),
        Route("/admin/v1/keys", guarded(create_key), methods=["POST"]),
        Route("/admin/v1/keys/{key_id}", guarded(revoke_key), methods=["DELETE"]),
    ]
