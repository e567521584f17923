"""One line of a batch: read as the door of its address reads a body, and told with its answer or its error. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import orjson

from tidemill.core.errors import MissingInput, NotOffered, TidemillError, WrongValue
from tidemill.core.text import short
from tidemill.doors import problems
from tidemill.doors.openai import errors
from tidemill.doors.openai.batch.bounds import CUSTOM_ID_CHARACTERS_MAX
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.json_body import parse

EXPIRED: Final = "batch_expired"


def custom_id_of(raw: bytes) -> str | None:
    """The caller's name for the line, None where there is none that could be told again."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    found = value.get("custom_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and len(found) <= CUSTOM_ID_CHARACTERS_MAX else None


def read(raw: bytes, endpoint: str, lax: bool) -> Fields:
    """The body of the request that the line makes. Raises `MalformedRequest` and the errors of `Fields`."""
    fields = Fields(parse(raw), lax=lax)
    fields.needed("custom_id")
    if not fields.text("custom_id", CUSTOM_ID_CHARACTERS_MAX):
        raise fields.wrong("custom_id", "is empty")
    fields.needed("method")
    fields.word("method", ("POST",), "POST")
    fields.needed("url")
    url = fields.take("url")
    if url != endpoint:
        raise WrongValue(f"url is {short(url)}, and this batch asks {endpoint}", param="url")
    body = fields.take("body")
    if body is None:
        raise MissingInput("body is missing: the request that the line makes", param="body")
    fields.end()
    found = Fields(body, lax=lax)
    if found.values.get("stream"):
        raise NotOffered("the answers of a batch are not streamed", param="stream")
    return found


def line_id(batch_id: str, number: int) -> str:
    """The line's own id, by which its answer is found again. `number` counts from 1."""
    return f"batch_req_{batch_id.removeprefix('batch_')}_{number}"


def number_of(told_id: str) -> int:
    return int(told_id.rpartition("_")[2])


def charge_id(batch_id: str, number: int, work: int) -> str:
    """The name of the charge for a piece of a line's work: whenever it runs, and by whatever version it is answered, it
    is charged once."""
    return blake2b(f"batch\0{batch_id}\0{number}\0{work}".encode(), digest_size=16).hexdigest()


def answered(batch_id: str, number: int, custom_id: str | None, words: bytes) -> bytes:
    return _told(batch_id, number, custom_id, _response(batch_id, number, 200, orjson.Fragment(words)), None)


def refused(batch_id: str, number: int, custom_id: str | None, error: TidemillError) -> bytes:
    """What the door would have answered."""
    response = _response(batch_id, number, problems.http_status(error), errors.body(error))
    return _told(batch_id, number, custom_id, response, None)


def given_up(batch_id: str, number: int, custom_id: str | None) -> bytes:
    """A line that did not run before the batch's time was over."""
    error = {"code": EXPIRED, "message": "this request did not run within the batch's completion window"}
    return _told(batch_id, number, custom_id, None, error)


def _response(batch_id: str, number: int, status: int, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": line_id(batch_id, number), "body": body}


def _told(batch_id: str, number: int, custom_id: str | None, response: Any, error: Any) -> bytes:
    told = {"id": line_id(batch_id, number), "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(told)
