"""A streamed answer as a caller reads it: server-sent events (WHATWG's HTML standard, section 9.2) out of bytes, and
OpenAI's chunks of a chat out of events. Pure; used by what calls a service: the command line, the console, the
engine `remote`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tidemill.core.errors import ServerRefused
from tidemill.core.request import Usage

DONE: Final = b"[DONE]"
SAID_CHARACTERS: Final = 500

EVENT_BYTES_MAX = 4 * 2**20
"""Of one event; a server that sends more than that without an end sends no words of a model."""


class EventReader:
    """Gives the data of each event that is whole. What a stream that ended leaves behind is no event.

    Names, ids and comments are passed over: OpenAI's dialect says all in the data.
    """

    __slots__ = ("_data", "_kept", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._kept = 0

    def feed(self, part: bytes) -> list[bytes]:
        """Raises `ServerRefused` for an event without an end."""
        buffer = self._rest + part
        # A carriage return at the end may be the first half of a line's end: it waits for the next part.
        held = b"\r" if buffer.endswith(b"\r") else b""
        lines = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                self._data.append(value)
                self._kept += len(value)
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data, self._kept = [], 0
        if self._kept + len(self._rest) > EVENT_BYTES_MAX:
            raise ServerRefused(
                f"the server sent an event of more than {EVENT_BYTES_MAX} bytes; that is no model's word"
            )
        return found


@dataclass(slots=True)
class Answer:
    """One answer as it grows.

    `counted` is None for one that was broken off, and where a server counts nothing; `finish` is the server's word for
    why it ended. Seconds are from when the question was sent.
    """

    text: str = ""
    finish: str = ""
    counted: Usage | None = None
    first_s: float | None = None
    spent_s: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Of those behind the first, which waits for the prompt; None where nobody counted, and for a single one."""
        if self.counted is None or self.first_s is None or self.counted.completion_tokens < 2:
            return None
        spent_s = self.spent_s - self.first_s
        return (self.counted.completion_tokens - 1) / spent_s if spent_s > 0 else None

    def take(self, data: bytes) -> str:
        """The words of one chunk, which are added to `text`; what else it tells is kept too. Raises `ServerRefused`."""
        chunk = _parsed(data)
        if chunk.get("error"):
            raise ServerRefused(f"the server broke off: {said(chunk)}")
        words = ""
        try:
            if usage := chunk.get("usage"):
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                self.counted = Usage(
                    prompt_tokens=int(usage["prompt_tokens"]),
                    completion_tokens=int(usage["completion_tokens"]),
                    cached_tokens=int(cached),
                )
            for choice in chunk.get("choices") or ():
                words += choice["delta"].get("content") or ""
                self.finish = choice.get("finish_reason") or self.finish
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerRefused(f"the server sent a chunk that is none of OpenAI's: {error!r}") from error
        self.text += words
        return words


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ServerRefused(f"the server sent a chunk that is no JSON: {data[:80]!r}") from error
    if not isinstance(chunk, dict):
        raise ServerRefused(f"the server sent a chunk that is no object: {data[:80]!r}")
    return chunk


def worded(body: bytes) -> str:
    """What a refusal's body says, in whichever shape."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:SAID_CHARACTERS].decode("utf-8", "replace") or "nothing more"
    return said(told) if isinstance(told, dict) else str(told)[:SAID_CHARACTERS]


def said(told: Mapping[str, Any]) -> str:
    """The message of an error in OpenAI's shape, or in this service's own."""
    error = told.get("error", told)
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:SAID_CHARACTERS]


def took(answer: Answer, price: str = "") -> str:
    """A line for a person: tokens, their speed, `price` in words; what nobody knows is left out."""
    counted, parts = answer.counted, []
    if counted is not None:
        cached = f" ({counted.cached_tokens} cached)" if counted.cached_tokens else ""
        parts.append(f"{counted.prompt_tokens} tokens{cached} in, {counted.completion_tokens} out")
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.3g} tokens/s")
    if answer.first_s is not None:
        parts.append(f"first after {answer.first_s:.2f} s")
    if price:
        parts.append(price)
    if answer.finish == "length":
        parts.append("cut at its most tokens")
    return " · ".join(parts) or f"{answer.spent_s:.1f} s"
