"""What the headers of an HTTP request say, read in one pass before anything of the body; runs on the owner's loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from tidemill.core.errors import MalformedRequest, RequestTooLarge, UnsupportedEncoding
from tidemill.core.tensor import Tensors
from tidemill.doors.way import checked_request_id
from tidemill.observe.log import REQUEST_ID

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Head:
    """`given_id` is the caller's `Idempotency-Key`, or else its `X-Request-Id`; "" when there is neither.
    `body_bytes_max` bounds what a body may be made into, too."""

    __slots__ = (
        "body_bytes_max",
        "content_length",
        "content_type",
        "credential",
        "given_id",
        "json_length",
        "request_id",
        "timeout_s",
    )

    def __init__(self, request_id: str) -> None:
        """`request_id` stands until the caller's own is read."""
        self.body_bytes_max = 0
        self.credential = ""
        self.content_length = -1
        self.content_type = ""
        self.request_id = request_id
        self.given_id = ""
        self.json_length = -1
        self.timeout_s: float | None = None

    def read(self, headers: list[tuple[bytes, bytes]], body_bytes_max: int) -> None:
        """Raises `MalformedRequest`, `UnsupportedEncoding`, `RequestTooLarge`."""
        self.body_bytes_max = body_bytes_max
        idempotency = ""
        for name, value in headers:
            if name == b"content-length":
                self.content_length = _number(name, value)
            elif name == b"content-type":
                if value != b"application/json":  # which is nearly always, and says nothing that is not known
                    self.content_type = value.decode("latin-1")
            elif name == b"authorization":
                if value[:7].lower() == b"bearer ":
                    self.credential = value[7:].strip().decode("latin-1")
            elif name == b"x-request-id" and value:
                self.given_id = self.request_id = checked_request_id(value.decode("latin-1"))
                REQUEST_ID.set(self.request_id)
            elif name == b"idempotency-key" and value:
                idempotency = checked_request_id(value.decode("latin-1"))
            elif name == b"inference-header-content-length":
                self.json_length = _number(name, value)
            elif name == b"x-request-timeout-ms":
                self.timeout_s = _number(name, value) / 1000
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise UnsupportedEncoding(f"content-encoding {value.decode('latin-1')!r} is not read; send it plain")
        if self.content_length > body_bytes_max:
            raise too_large(self.content_length, body_bytes_max)
        self.given_id = idempotency or self.given_id


def too_large(size: int, body_bytes_max: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the body has {size} bytes or more, the most allowed is {body_bytes_max} (--body-bytes-max)"
    )


COMMAS_BESIDES = 1024
"""Those between the names, shapes and parameters of tensors."""


def check_commas(body: bytes, json_length: int, values_max: int) -> None:
    """Refuse JSON with more values than are taken, before each of them becomes an object of Python's.

    Values stand between commas; those within texts are counted too, which only a body of many megabytes of commas
    notices. Raises `RequestTooLarge`.
    """
    commas = body.count(b",") if json_length < 0 else body.count(b",", 0, json_length)
    if commas >= values_max + COMMAS_BESIDES:
        raise too_many(commas + 1, values_max)


def check_values(tensors: Tensors, values_max: int) -> None:
    """Raises `RequestTooLarge`."""
    count = sum(array.size for array in tensors.values())
    if count > values_max:
        raise too_many(count, values_max)


def too_many(count: int, values_max: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the request has {count} values, the most allowed is {values_max} (--values-max); ask in parts"
    )


async def read_body(receive: Receive, body_bytes_max: int) -> bytes:
    """The whole body. Raises `RequestTooLarge` as soon as it is."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > body_bytes_max:
            raise too_large(len(body), body_bytes_max)
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body", False):
        message = await receive()
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > body_bytes_max:
            raise too_large(size, body_bytes_max)
    return b"".join(parts)


def _number(name: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 15:
        raise MalformedRequest(f"header {name.decode()} is {value[:40].decode('latin-1')!r}, expected a whole number")
    return int(value)
