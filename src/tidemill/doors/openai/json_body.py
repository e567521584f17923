"""The body of a request in OpenAI's dialect: strict JSON whose every text is text. Pure."""

from __future__ import annotations

import json
from typing import Any

import orjson

from tidemill.core.errors import MalformedRequest
from tidemill.core.text import short


def parse(body: bytes) -> Any:
    """Raises `MalformedRequest`: for what is no JSON without a place in it, for half a surrogate pair with its `param`.

    NaN and Infinity, which JSON has no word for, are read: they are refused where they stand, by name.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refused = error
    try:
        value = json.loads(body.decode())  # reads NaN, and halves of pairs, so that their place can be told
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {refused}") from error
    place = half_pair(value)
    if place is not None:
        raise MalformedRequest(f"{place or 'the body'} holds half a surrogate pair, which is no text", param=place)
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
