"""Finds calls of functions in what a model says, while it says it. Pure; one reader for each choice.

A reader takes what comes and gives events: words for people, and calls, in order. What only looked like a call is given
back as words. A model that makes calls by itself tells them apart from its words.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tidemill.core.generation import Delta, Finish
from tidemill.doors.openai.tools import ToolUse
from tidemill.doors.openai.wording import CLOSE, OPEN


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A call begins; its arguments follow."""

    call: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the arguments of a call, text that is JSON when whole."""

    call: int
    text: str


Event: TypeAlias = Words | Begun | Arguments


class Reader(Protocol):
    """`calls` counts those that have begun."""

    calls: int

    def take(self, delta: Delta) -> Iterator[Event]: ...

    def finish(self, delta: Delta) -> Finish:
        """Why the choice ended that `delta` is the last of."""


def reader(use: ToolUse) -> Reader:
    if use.calling is not None:
        return Told()
    if use.how == "none":
        return Plain()
    if use.how == "auto":
        return Tagged(use)
    return Named(use.tools[0].name) if len(use.tools) == 1 else Chosen(use)


def call_id() -> str:
    return f"call_{os.urandom(12).hex()}"


class Told:
    """Calls as the model tells them."""

    def __init__(self) -> None:
        self.calls = 0

    def take(self, delta: Delta) -> Iterator[Event]:
        if delta.text:
            yield Words(delta.text)
        for each in delta.calls:
            if each.call == self.calls:
                self.calls += 1
                yield Begun(each.call, each.call_id or call_id(), each.name)
            if each.arguments:
                yield Arguments(each.call, each.arguments)

    def finish(self, delta: Delta) -> Finish:
        return delta.finish


class _OfWords(ABC):
    """Calls are to be found in the words."""

    calls = 0

    def take(self, delta: Delta) -> Iterator[Event]:
        yield from self.feed(delta.text)
        if delta.finish:
            yield from self.end()

    def finish(self, delta: Delta) -> Finish:
        """One that was cut is told as such, call or not: its arguments may be cut, too."""
        return "tool_calls" if delta.finish == "stop" and self.calls else delta.finish

    @abstractmethod
    def feed(self, text: str) -> Iterator[Event]:
        """The model goes on with `text`."""

    def end(self) -> Iterator[Event]:
        """The model has said its last."""
        return iter(())


class Plain(_OfWords):
    """Words, nothing else."""

    def feed(self, text: str) -> Iterator[Event]:
        if text:
            yield Words(text)


class Named(_OfWords):
    """All of it is the arguments of one call."""

    def __init__(self, name: str) -> None:
        self._name = name

    def feed(self, text: str) -> Iterator[Event]:
        if not text:
            return
        if not self.calls:
            self.calls = 1
            yield Begun(0, call_id(), self._name)
        yield Arguments(0, text)


class Chosen(_OfWords):
    """All of it is one call, with its name; told when whole."""

    def __init__(self, use: ToolUse) -> None:
        self._names = {tool.name for tool in use.tools}
        self._text = ""

    def feed(self, text: str) -> Iterator[Event]:
        self._text += text
        return iter(())

    def end(self) -> Iterator[Event]:
        found = parsed(self._text, self._names)
        if not found:
            yield Words(self._text)
            return
        self.calls = 1
        yield Begun(0, call_id(), found[0][0])
        yield Arguments(0, found[0][1])


class Tagged(_OfWords):
    """Words, with calls between tags among them. White space around calls is nobody's."""

    def __init__(self, use: ToolUse) -> None:
        self._names = {tool.name for tool in use.tools}
        self._calls_max = len(use.tools) * 64 if use.parallel else 1
        self._text = ""
        self._inside = False
        self._blank = ""

    def feed(self, text: str) -> Iterator[Event]:
        self._text += text
        while True:
            tag = CLOSE if self._inside else OPEN
            before, found, after = self._text.partition(tag)
            if not found:
                break
            self._text = after
            self._inside = not self._inside
            if found == OPEN:
                yield from self._words(before)
            else:
                yield from self._call(before, closed=True)
        if not self._inside:
            keep = _may_begin(self._text, OPEN)
            free, self._text = self._text[: len(self._text) - keep], self._text[len(self._text) - keep :]
            yield from self._words(free)

    def end(self) -> Iterator[Event]:
        text, self._text = self._text, ""
        if self._inside:
            yield from self._call(text, closed=False)
        else:
            yield from self._words(text)
        if self._blank and not self.calls:
            yield Words(self._blank)

    def _words(self, text: str) -> Iterator[Event]:
        if not text.strip():
            self._blank += text
            return
        stripped = text.rstrip()
        yield Words(self._blank + stripped)
        self._blank = text[len(stripped) :]

    def _call(self, text: str, closed: bool) -> Iterator[Event]:
        found = parsed(text, self._names)
        if not found:
            yield from self._words(f"{OPEN}{text}{CLOSE if closed else ''}")
            return
        self._blank = ""
        for name, arguments in found[: self._calls_max - self.calls]:
            yield Begun(self.calls, call_id(), name)
            yield Arguments(self.calls, arguments)
            self.calls += 1


def parsed(text: str, names: set[str]) -> list[tuple[str, str]]:
    """(name, arguments as JSON) of each call in `text`, one JSON object or a list of them; [] where it is no call of
    one of `names`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = [_of(each, names) for each in (found if isinstance(found, list) else [found])]
    return [each for each in calls if each is not None] if calls and None not in calls else []


def _of(call: Any, names: set[str]) -> tuple[str, str] | None:
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or call["name"] not in names:
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, dict):
        return None
    return call["name"], json.dumps(arguments, ensure_ascii=False)


def _may_begin(text: str, tag: str) -> int:
    """How many characters at the end of `text` begin `tag`."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)
