"""Errors in OpenAI's words: the table beside `doors/problems.py`, and the paths where it holds; used in every process
that answers HTTP."""

from __future__ import annotations

from typing import Any

import orjson

from tidemill.core.errors import TidemillError
from tidemill.doors import problems

OURS, NOT_OURS = "/v1/", "/v1/models"
"""What lies below the first is worded as OpenAI does, but for `/v1/models`, which is TensorFlow Serving's too."""


def _ours(path: str) -> bool:
    return path.startswith(OURS) and not path.startswith(NOT_OURS)


CODES = {
    "model.unknown": "model_not_found",
    "model.version_unknown": "model_not_found",
    "model.label_unknown": "model_not_found",
    "key.missing": "invalid_api_key",
    "key.invalid": "invalid_api_key",
    "key.revoked": "invalid_api_key",
    "input.missing": "missing_required_parameter",
    "input.unknown": "unknown_parameter",
    "input.datatype": "invalid_type",
    "input.value": "invalid_value",
    "input.too_long": "context_length_exceeded",
    "request.not_offered": "unsupported_parameter",
    "tenant.full": "quota_exceeded",
}
"""Dotted code -> OpenAI's, where clients know one; the others stay as they are."""
TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
"""Status -> OpenAI's type of error; other refusals are `invalid_request_error`, other failures `server_error`."""


def body(error: TidemillError) -> dict[str, Any]:
    """OpenAI's object, and beside it the dotted code as every door tells it."""
    status = problems.http_status(error)
    return {
        "error": {
            "message": error.message.encode("utf-8", "replace").decode(),
            "type": TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
            "param": error.param,
            "code": CODES.get(error.code, error.code),
        },
        "code": error.code,
    }


def event_at(path: str, error: TidemillError) -> bytes:
    """The error as the last event of a stream that had begun at `path`."""
    told = orjson.dumps(body(error)) if _ours(path) else problems.body(error)
    return b"data: " + told + b"\n\n"


def reply(error: TidemillError) -> problems.Reply:
    """As `problems.reply`."""
    headers = [(b"content-type", b"application/json"), *problems.extra_headers(error)]
    return problems.http_status(error), headers, orjson.dumps(body(error))


def reply_at(path: str, error: TidemillError) -> problems.Reply:
    """The refusal in the words of the dialect that is spoken at `path`."""
    return reply(error) if _ours(path) else problems.reply(error)
