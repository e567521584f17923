"""Puts the operations and their shapes together; rendered once, when the service starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tidemill import __version__
from tidemill.doors.openapi.basics import TEXT, record, ref
from tidemill.doors.openapi.shapes import SHAPES

JSON = "application/json"
EVENTS = "text/event-stream"
MULTIPART = "multipart/form-data"
BYTES = {"type": "string", "format": "binary"}
FORM = record({"file": BYTES, "purpose": {"const": "batch"}})
PARAMETERS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}$"},
    "version": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "label": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^/:]+$"},
}
"""What a part of an address may be; TEXT where it is not named."""


class Operation(msgspec.Struct, frozen=True):
    """One method at one address. `body` and `reply` name shapes; `media` is what the reply may be where not JSON, ""
    where it is empty. `query` are optional parameters. `unready` tells that 503 is an answer of the same shape.
    `sends` are the media types that the body may have besides JSON, as plain bytes or as a form with a file. `refusal`
    is the shape of errors."""

    method: str
    path: str
    tag: str
    summary: str
    reply: str = ""
    body: str = ""
    media: str = JSON
    status: int = 200
    query: tuple[str, ...] = ()
    key: bool = True
    unready: bool = False
    sends: tuple[str, ...] = ()
    refusal: str = "Error"


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document: https://spec.openapis.org/oas/v3.1.1.html"""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemill",
            "version": __version__,
            "description": "Models as a service, in REST as TensorFlow Serving, KServe V2 and OpenAI speak it."
            " The admin API besides.",
        },
        "paths": paths,
        "components": {
            "schemas": SHAPES,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(each: Operation) -> dict[str, Any]:
    parts = [part.partition("{")[2].partition("}")[0] for part in each.path.split("/")]
    parameters = [
        {"name": part, "in": "path", "required": True, "schema": PARAMETERS.get(part, TEXT)} for part in parts if part
    ]
    parameters += [{"name": name, "in": "query", "required": False, "schema": TEXT} for name in each.query]
    schema = ref(each.reply) if each.reply else TEXT
    answered: dict[str, Any] = {"description": "answered"}
    if each.media:
        answered["content"] = {
            media: {"schema": TEXT if media == EVENTS else schema} for media in each.media.split(",")
        }
    refused = {"description": "refused, with a stable code", "content": {JSON: {"schema": ref(each.refusal)}}}
    made: dict[str, Any] = {
        "tags": [each.tag],
        "summary": each.summary,
        "parameters": parameters,
        "responses": {str(each.status): answered, "default": refused},
    }
    if each.unready:
        made["responses"]["503"] = answered
    taken = {JSON: {"schema": ref(each.body)}} if each.body else {}
    taken |= {media: {"schema": FORM if media == MULTIPART else BYTES} for media in each.sends}
    if taken:
        made["requestBody"] = {"required": True, "content": taken}
    if each.key:
        made["security"] = [{"key": []}]
    return made
