"""What every route behind the hot ones shares: JSON replies, errors in one shape, identity; runs on the owner's
loop."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tidemill.core.errors import Forbidden, MethodNotAllowed, TidemillError, UnknownRoute
from tidemill.core.request import ANONYMOUS, Caller
from tidemill.core.text import short
from tidemill.doors.head import Head
from tidemill.doors.json_values import render
from tidemill.doors.openai import errors
from tidemill.doors.way import check_admin
from tidemill.observe.log import REQUEST_ID
from tidemill.serve.answer import Service

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
SMALL_BODY_BYTES_MAX = 64 * 1024
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::[0-9]*)?")


def reply(value: Any, status: int = 200) -> Response:
    return Response(render(value), status, media_type="application/json")


def problem(error: TidemillError, path: str = "") -> Response:
    status, headers, body = errors.reply_at(path, error)
    response = Response(body, status)
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    return response


async def on_tidemill_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TidemillError)  # noqa: S101 - registered for that class alone
    return problem(error, request.url.path)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own refusals, in our words."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for that class alone
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))  # a set's order is any
        refusal = MethodNotAllowed(f"{request.method} is not taken at {request.url.path}, {allowed} is")
        response = problem(refusal, request.url.path)
        response.headers["allow"] = allowed
        return response
    return problem(UnknownRoute(f"there is nothing at {request.url.path}"), request.url.path)


async def on_any_error(request: Request, error: Exception) -> Response:
    log.error("a request failed in a way that was not foreseen", exc_info=error)
    return problem(TidemillError(f"this server failed; its log tells more under {REQUEST_ID.get()}"), request.url.path)


def _refuse_foreign_pages(request: Request, caller: Caller) -> None:
    """A web page of another site that asks from the operator's own browser is not the operator. Raises `Forbidden`.

    Without keys a name that somebody else can point at this address (DNS rebinding) is such a page too.
    """
    sent = request.headers.get("host")  # not the framework's `url`: of a host that it cannot read it knows nothing
    host = hostname(sent) if sent is not None else "localhost"  # every browser sends one
    if caller is ANONYMOUS and host != "localhost" and not _is_address(host):
        raise Forbidden(f"without keys the admin API is asked by address or as localhost, not as {short(sent)}")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden(f"a page of {origin[:100]!r} may not use the admin API of {request.headers.get('host')!r}")


def hostname(host: str) -> str:
    """The name or address in a `Host` header, in lower case; "" where it is none (RFC 9110, 7.2)."""
    found = _HOST.fullmatch(host)
    return found["address"] or found["name"].lower() if found else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def caller(
    service: Service, request: Request, admin: bool = False, body_bytes_max: int = SMALL_BODY_BYTES_MAX
) -> Caller:
    """Who asks. Raises what `Identity.recognise` raises, and `Forbidden` for a key without `--admin`."""
    head = Head("")
    head.read(request.scope["headers"], body_bytes_max)
    found = service.identity.recognise(head.credential)
    if admin:
        _refuse_foreign_pages(request, found)
        check_admin(found)
    return found
