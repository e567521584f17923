"""What the addresses of files and batches share: who asks, and which page of a list; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from starlette.requests import Request

from tidemill.core.errors import WrongValue
from tidemill.core.request import Caller
from tidemill.core.text import short
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX

Callers: TypeAlias = Callable[[Request], Caller]


def page(request: Request, limit_default: int, limit_max: int) -> tuple[str, int, bool]:
    """(after, limit, newest first) of a list. Raises `WrongValue`."""
    after = request.query_params.get("after", "")
    if len(after) > NAME_CHARACTERS_MAX:
        raise WrongValue(f"after has {len(after)} characters, expected an id", param="after")
    asked = request.query_params.get("limit", str(limit_default))
    limit = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
    if not 1 <= limit <= limit_max:
        raise WrongValue(f"limit is {short(asked)}, expected 1 to {limit_max}", param="limit")
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise WrongValue(f"order is {short(order)}, expected asc or desc", param="order")
    return after, limit, order == "desc"
