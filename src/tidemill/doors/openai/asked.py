"""What the modules of this dialect share: a request that was read, and how its answer is told. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

from tidemill.core.contracts import Served
from tidemill.core.generation import Delta, Generate
from tidemill.core.request import Usage, Work
from tidemill.core.tensor import Tensors

DONE = b"data: [DONE]\n\n"


class About(NamedTuple):
    """What every answer tells of itself; `model` is the name that was asked for."""

    model: str
    request_id: str
    created_s: int
    served: Served

    @property
    def fingerprint(self) -> str:
        return f"{self.served.name}@{self.served.version}"


class Whole(NamedTuple):
    """All that came of one piece of work."""

    deltas: list[Delta]
    tensors: Tensors
    usage: Usage


class Teller(Protocol):
    """Words one answer as server-sent events. Each method gives those to send now, b"" for none."""

    def begin(self) -> bytes: ...

    def told(self, work: int, delta: Delta) -> bytes:
        """`work` is the index of what the delta answers."""

    def end(self, usage: Usage) -> bytes:
        """Called once, after the charge of all of it is durable."""


class Asked(Protocol):
    """A request that was read: what is to be done, and how the answer is worded."""

    @property
    def works(self) -> Sequence[Work]: ...

    @property
    def stream(self) -> bool: ...

    @property
    def shaped_by(self) -> str:
        """The field to blame where nothing that may be said fits what was asked for."""

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        """The answer as plain JSON values."""

    def teller(self, about: About) -> Teller: ...


def works(asked: Asked) -> Sequence[Work]:
    """Its pieces of work, which stream where it does."""
    if asked.stream:
        return asked.works
    return [msgspec.structs.replace(each, stream=False) if isinstance(each, Generate) else each for each in asked.works]


def event(value: Any) -> bytes:
    """One server-sent event without a name."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named_event(value: dict[str, Any]) -> bytes:
    """One that bears the name of its type, as responses have them."""
    name: str = value["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n"


def total(usages: Sequence[Usage]) -> Usage:
    return Usage(
        prompt_tokens=sum(each.prompt_tokens for each in usages),
        completion_tokens=sum(each.completion_tokens for each in usages),
        cached_tokens=sum(each.cached_tokens for each in usages),
    )


def usage_of(usage: Usage) -> dict[str, Any]:
    """In the words of chat and completions."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
