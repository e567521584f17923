"""What is sent to an upstream, and what it may say: bounded, judged by its status, its words kept from leaking ours."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx
import msgspec
import orjson

from tidemill.core.errors import (
    Overloaded,
    PromptTooLong,
    RefusedByEngine,
    RequestTooLarge,
    TidemillError,
    UpstreamFailed,
    WrongValue,
)
from tidemill.core.text import short

REFUSAL_BYTES_MAX = 64 * 2**10
"""Of an upstream's refusal is read so much."""
RETRY_AFTER_S, RETRY_AFTER_S_MAX = 1.0, 3600.0
SICK = frozenset({401, 403, 404, 408, 502, 503, 504})
"""Statuses after which an upstream is asked no more for a while, where they come in a row; a 500 may be the fault of
one question."""
TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "input_tokens", "input_text"})
"""How servers say that a prompt is: OpenAI's code, llama.cpp's type, the parameters that vLLM names."""
NOTHING_THERE = frozenset({404, 405})
OURS = {401: "refuses our key", 403: "refuses our key", 404: "does not know the model, or the address is not its own"}


class Asking(NamedTuple):
    """A request, but for the upstream that it goes to; `path` begins with a slash. Where an upstream has nothing there,
    it may have it `elsewhere`."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    elsewhere: str = ""


class _Told(msgspec.Struct):
    """An error in OpenAI's shape, or in V2's and TensorFlow Serving's, whose `error` is the message."""

    message: str = ""
    type: str | int | None = None
    code: str | int | None = None
    param: str | None = None


def decoded(body: bytes) -> Any:
    """JSON, with NaN where servers write it. Raises `UpstreamFailed`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed("the upstream answered with what is no JSON") from error


class Judged(NamedTuple):
    """A refusal or a failure: the error to raise where nobody else can answer, whether others may be asked, and
    whether it speaks against the upstream's health (None: neither for nor against)."""

    error: TidemillError
    others: bool
    well: bool | None


def judge(status: int, headers: httpx.Headers, body: bytes, who: str) -> Judged:
    """What a status of 300 and more means."""
    if status == 429 or (status == 503 and "retry-after" in headers):
        told = f"{who} has no place for this request now"
        return Judged(Overloaded(told, retry_after_s=retry_after(headers)), others=True, well=None)
    if status in OURS:
        return Judged(UpstreamFailed(f"{who} {OURS[status]} (status {status})"), others=True, well=False)
    if status in SICK or status >= 500 or status < 400:
        sick = status in SICK or status < 400
        return Judged(UpstreamFailed(f"{who} answered with status {status}"), others=True, well=False if sick else None)
    told_of = _read(body)
    message = f"{who} refused: {short(told_of.message, 400) if told_of.message else f'status {status}'}"
    kind: type[TidemillError] = RefusedByEngine
    if TOO_LONG & {told_of.code, told_of.type, told_of.param}:
        param = None if told_of.param in TOO_LONG else told_of.param
        return Judged(PromptTooLong(message, param=param), others=False, well=True)
    if status == 413:
        kind = RequestTooLarge
    elif told_of.param:
        kind = WrongValue
    return Judged(kind(message, param=told_of.param), others=False, well=True)


def retry_after(headers: httpx.Headers) -> float:
    """In seconds; a date is not read."""
    given = headers.get("retry-after", "")
    return min(float(given), RETRY_AFTER_S_MAX) if given.isdecimal() else RETRY_AFTER_S


def _read(body: bytes) -> _Told:
    try:
        told = orjson.loads(body)
        error = told.get("error", told)
        return _Told(message=error) if isinstance(error, str) else msgspec.convert(error, _Told)
    except (orjson.JSONDecodeError, msgspec.ValidationError, AttributeError):
        return _Told()
