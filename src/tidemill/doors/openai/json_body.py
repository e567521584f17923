"""The body of a request in OpenAI's dialect: strict JSON whose every text is text. Pure."""

from __future__ import annotations

import json
from typing import Any

import orjson

from tidemill.core.errors import MalformedRequest
from tidemill.core.text import short


def parse(body: bytes) -> Any:
    """Raises `MalformedRequest`: for what is no JSON without a place in it, for bytes that are no UTF-8 and for half a
    surrogate pair with their `param`.

    NaN and Infinity, which JSON has no word for, are read: they are refused where they stand, by name.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refused = error
    try:
        # Reads NaN, and what is no text (bytes that are no UTF-8 as halves of pairs), so that its place can be told.
        value = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {refused}") from error
    place = half_pair(value)
    if place is not None:
        what = "half a surrogate pair" if _is_utf8(body) else "bytes that are no UTF-8"
        raise MalformedRequest(f"{place or 'the body'} holds {what}, which is no text", param=place)
    return value


def half_pair(value: Any) -> str | None:
    """The path of a text (or of a name) that UTF-8 cannot hold, None where there is none."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, str):
            if not _is_text(each):
                return path
        elif isinstance(each, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(each)]
        elif isinstance(each, dict):
            for name, item in each.items():
                if not _is_text(name):
                    return f"{path}.{short(name)}" if path else short(name)
                waiting.append((f"{path}.{name}" if path else name, item))
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
