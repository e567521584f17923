"""The one table from an error's code to HTTP and gRPC; used by every door. A test walks the tree against it."""

from __future__ import annotations

import math
import random
from typing import TypeAlias

import grpc
import orjson

from tidemill.core.errors import TidemillError

Status: TypeAlias = grpc.StatusCode
Reply: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers without content-length, body."""

PROBLEMS: dict[str, tuple[int, Status]] = {
    "request.invalid": (400, Status.INVALID_ARGUMENT),
    "request.malformed": (400, Status.INVALID_ARGUMENT),
    "request.too_large": (413, Status.RESOURCE_EXHAUSTED),
    "request.headers_too_large": (431, Status.RESOURCE_EXHAUSTED),
    "request.too_slow": (408, Status.DEADLINE_EXCEEDED),
    "request.encoding": (415, Status.INVALID_ARGUMENT),
    "request.media": (415, Status.INVALID_ARGUMENT),
    "request.route": (404, Status.UNIMPLEMENTED),
    "request.method": (405, Status.UNIMPLEMENTED),
    "request.not_offered": (400, Status.UNIMPLEMENTED),
    "request.cancelled": (499, Status.CANCELLED),
    "connection.tls": (400, Status.UNAVAILABLE),
    "request.deadline": (504, Status.DEADLINE_EXCEEDED),
    "key.missing": (401, Status.UNAUTHENTICATED),
    "key.invalid": (401, Status.UNAUTHENTICATED),
    "key.revoked": (401, Status.UNAUTHENTICATED),
    "key.forbidden": (403, Status.PERMISSION_DENIED),
    "key.unknown": (404, Status.NOT_FOUND),
    "model.unknown": (404, Status.NOT_FOUND),
    "file.unknown": (404, Status.NOT_FOUND),
    "batch.unknown": (404, Status.NOT_FOUND),
    "batch.state": (409, Status.FAILED_PRECONDITION),
    "tenant.full": (429, Status.RESOURCE_EXHAUSTED),
    "model.version_unknown": (404, Status.NOT_FOUND),
    "model.label_unknown": (404, Status.NOT_FOUND),
    "model.signature_unknown": (400, Status.INVALID_ARGUMENT),
    "model.refused": (400, Status.FAILED_PRECONDITION),
    "model.not_compiled": (400, Status.FAILED_PRECONDITION),
    "compile.refused": (400, Status.FAILED_PRECONDITION),
    "model.not_ready": (503, Status.UNAVAILABLE),
    "input.missing": (400, Status.INVALID_ARGUMENT),
    "input.unknown": (400, Status.INVALID_ARGUMENT),
    "input.datatype": (400, Status.INVALID_ARGUMENT),
    "input.shape": (400, Status.INVALID_ARGUMENT),
    "input.value": (400, Status.INVALID_ARGUMENT),
    "input.too_long": (400, Status.INVALID_ARGUMENT),
    "input.media": (400, Status.INVALID_ARGUMENT),
    "output.unknown": (400, Status.INVALID_ARGUMENT),
    "engine.refused": (400, Status.INVALID_ARGUMENT),
    "engine.failed": (500, Status.INTERNAL),
    "admission.overloaded": (503, Status.UNAVAILABLE),
    "admission.draining": (503, Status.UNAVAILABLE),
    "upstream.failed": (502, Status.UNAVAILABLE),
    "ledger.unavailable": (503, Status.UNAVAILABLE),
    "link.lost": (503, Status.UNAVAILABLE),
    "link.too_large": (413, Status.RESOURCE_EXHAUSTED),
    "setting.invalid": (400, Status.INVALID_ARGUMENT),
    "install.missing": (501, Status.UNIMPLEMENTED),
    "compress.recipe": (400, Status.INVALID_ARGUMENT),
    "compress.data": (400, Status.INVALID_ARGUMENT),
    "compress.layer": (400, Status.FAILED_PRECONDITION),
    "compress.metric": (400, Status.FAILED_PRECONDITION),
    "compress.quality": (409, Status.FAILED_PRECONDITION),
    "compress.busy": (409, Status.ABORTED),
    "disk.full": (507, Status.RESOURCE_EXHAUSTED),
    "server.refused": (502, Status.UNAVAILABLE),
    "kit.fetch_failed": (502, Status.UNAVAILABLE),
    "internal": (500, Status.INTERNAL),
}


def http_status(error: TidemillError) -> int:
    return PROBLEMS[error.code][0]


def grpc_status(error: TidemillError) -> Status:
    return PROBLEMS[error.code][1]


def extra_headers(error: TidemillError) -> list[tuple[bytes, bytes]]:
    """`Retry-After` with jitter where waiting helps, `WWW-Authenticate` where a key does."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        seconds = math.ceil(error.retry_after_s * random.uniform(1.0, 2.0))  # noqa: S311 - spreads clients, no secret
        headers.append((b"retry-after", str(seconds).encode()))
    if http_status(error) == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.code in CLOSING:
        headers.append((b"connection", b"close"))
    return headers


CLOSING = frozenset({"request.too_large", "request.too_slow", "request.headers_too_large"})
"""Errors after which the rest of the body is not worth reading."""


def body(error: TidemillError) -> bytes:
    """`{"error": message, "code": code}`, and `param` where there is one to blame: both REST dialects read `error`."""
    told = {"error": error.message, "code": error.code}
    return orjson.dumps(told | {"param": error.param} if error.param else told)


def reply(error: TidemillError) -> Reply:
    return http_status(error), [(b"content-type", b"application/json"), *extra_headers(error)], body(error)
