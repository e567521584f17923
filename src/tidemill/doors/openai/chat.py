"""`/v1/chat/completions`: the request into work, and its answer into one object or into chunks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import NotOffered
from tidemill.core.generation import Delta, Generate, Speaks
from tidemill.core.request import Usage, Work
from tidemill.doors.openai import calls, formats, messages, sampling, talk, tools
from tidemill.doors.openai.asked import DONE, About, Whole, event, total, usage_of
from tidemill.doors.openai.bounds import TOP_LOGPROBS_MAX, Limits
from tidemill.doors.openai.common import harmless, include_usage, logprobs_of
from tidemill.doors.openai.fields import Fields

MAX_TOKENS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Chat:
    """`asked.Asked` of a chat."""

    works: Sequence[Work]
    stream: bool
    usage: bool
    use: tools.ToolUse
    logprobs: bool

    @property
    def shaped_by(self) -> str:
        return "tools" if self.use.forced else "response_format"

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        generate = self.works[0]
        assert isinstance(generate, Generate)  # noqa: S101 - as `read` made it
        choices = [_Choice(self.use) for _ in range(generate.choices)]
        for delta in told[0].deltas:
            choices[delta.choice].take(delta)
        return {
            "id": f"chatcmpl-{about.request_id}",
            "object": "chat.completion",
            "created": about.created_s,
            "model": about.model,
            "choices": [each.told(index, self.logprobs) for index, each in enumerate(choices)],
            "usage": usage_of(total([each.usage for each in told])),
            "system_fingerprint": about.fingerprint,
        }

    def teller(self, about: About) -> Chunks:
        return Chunks(self, about)


def read(fields: Fields, speaks: Speaks, limits: Limits) -> Chat:
    """Raises the errors of `Fields`, each with its `param`."""
    if not speaks.chats:
        raise NotOffered("this model has no template for chat: ask it at /v1/completions", param="model")
    told = messages.read(fields, speaks)
    stream = fields.flag("stream", False)
    with_usage = include_usage(fields, stream)
    use = tools.read(fields, flat=False, speaks=speaks)
    wanted = formats.constraint(fields.record("response_format"), nested=True, speaks=speaks)
    logprobs = _logprobs(fields)
    how = sampling.read(fields, speaks, MAX_TOKENS, logprobs)
    choices = fields.whole("n", 1, limits.choices_max) or 1
    harmless(fields)
    _refuse(fields)
    fields.end()
    work = talk.generate(told, use, speaks, how, wanted, choices)
    return Chat((work,), stream, with_usage, use, logprobs is not None)


def _logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs", False)
    top = fields.whole("top_logprobs", 0, TOP_LOGPROBS_MAX)
    if top is not None and not wanted:
        raise fields.wrong("top_logprobs", "is given, and logprobs is not true")
    return (top or 0) if wanted else None


def _refuse(fields: Fields) -> None:
    fields.refuse("functions", "it is called tools now")
    fields.refuse("function_call", "it is called tool_choice now")
    fields.refuse("audio", "this model neither hears nor speaks aloud")
    fields.refuse("modalities", "text alone is written here", ["text"])
    fields.refuse("prediction", "nothing is predicted")
    fields.refuse("web_search_options", "nothing is searched")
    fields.refuse("reasoning_effort", "how long a model reasons is its own", "none")
    fields.refuse("verbosity", "how much a model says is its own", "medium")


class _Choice:
    """One choice, as it grows."""

    def __init__(self, use: tools.ToolUse) -> None:
        self.reader = calls.reader(use)
        self.words: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish = ""

    def take(self, delta: Delta) -> None:
        for each in self.reader.take(delta):
            self._add(each)
        self.logprobs += tokens_told(delta)
        if delta.finish:
            self.finish = self.reader.finish(delta)

    def _add(self, told: calls.Event) -> None:
        if isinstance(told, calls.Words):
            self.words.append(told.text)
        elif isinstance(told, calls.Begun):
            function = {"name": told.name, "arguments": ""}
            self.calls.append({"id": told.call_id, "type": "function", "function": function})
        else:
            self.calls[told.call]["function"]["arguments"] += told.text

    def told(self, index: int, logprobs: bool) -> dict[str, Any]:
        text = "".join(self.words)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self.calls else ""),
            "refusal": None,
        }
        if self.calls:
            message["tool_calls"] = self.calls
        shown = {"content": self.logprobs, "refusal": None} if logprobs else None
        return {"index": index, "message": message, "logprobs": shown, "finish_reason": self.finish}


def tokens_told(delta: Delta) -> list[dict[str, Any]]:
    """The tokens with their logprobs, none where none were asked for."""
    told = []
    for index, (token, logprob) in enumerate(zip(delta.tokens, delta.logprobs, strict=False)):
        others = delta.top[index] if index < len(delta.top) else ()
        one = logprobs_of(delta.spelled[index] if index < len(delta.spelled) else "", token, logprob)
        one["top_logprobs"] = [logprobs_of(text, number, value) for number, text, value in others]
        told.append(one)
    return told


class Chunks:
    """`asked.Teller` of a chat."""

    def __init__(self, chat: Chat, about: About) -> None:
        self._chat = chat
        generate = chat.works[0]
        assert isinstance(generate, Generate)  # noqa: S101 - as `read` made it
        self._readers = [calls.reader(chat.use) for _ in range(generate.choices)]
        self._head = {
            "id": f"chatcmpl-{about.request_id}",
            "object": "chat.completion.chunk",
            "created": about.created_s,
            "model": about.model,
            "system_fingerprint": about.fingerprint,
        }

    def begin(self) -> bytes:
        role = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(index, role) for index in range(len(self._readers)))

    def told(self, work: int, delta: Delta) -> bytes:
        reader = self._readers[delta.choice]
        events = list(reader.take(delta))
        parts = [self._chunk(delta.choice, _delta(each)) for each in events]
        if delta.logprobs:  # beside the words that they made, which may come later
            shown = {"content": tokens_told(delta), "refusal": None}
            if len(parts) == 1 and isinstance(events[0], calls.Words):
                parts = [self._chunk(delta.choice, _delta(events[0]), logprobs=shown)]
            else:
                parts.append(self._chunk(delta.choice, {}, logprobs=shown))
        if delta.finish:
            parts.append(self._chunk(delta.choice, {}, reader.finish(delta)))
        return b"".join(parts)

    def end(self, usage: Usage) -> bytes:
        if not self._chat.usage:
            return DONE
        return event({**self._head, "choices": [], "usage": usage_of(usage)}) + DONE

    def _chunk(
        self, index: int, delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = {**self._head, "choices": [choice]}
        return event({**chunk, "usage": None} if self._chat.usage else chunk)


def _delta(told: calls.Event) -> dict[str, Any]:
    if isinstance(told, calls.Words):
        return {"content": told.text}
    if isinstance(told, calls.Begun):
        function = {"name": told.name, "arguments": ""}
        return {"tool_calls": [{"index": told.call, "id": told.call_id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": told.call, "function": {"arguments": told.text}}]}
