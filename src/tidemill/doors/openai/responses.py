"""`/v1/responses`: the request into the work of a chat, and its answer into one response. Pure.

Nothing is kept: `store` changes nothing, and there is no response to refer back to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import NotOffered, WrongDatatype, WrongValue
from tidemill.core.generation import Delta, Sampling, Speaks
from tidemill.core.request import Usage, Work
from tidemill.core.text import short
from tidemill.doors.openai import calls, formats, messages, sampling, talk, tools
from tidemill.doors.openai.asked import About, Teller, Whole
from tidemill.doors.openai.bounds import MESSAGES_MAX, NAME_CHARACTERS_MAX, TEXT_MAX, Limits
from tidemill.doors.openai.common import harmless
from tidemill.doors.openai.fields import Fields

CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""How an answer ended that is not whole -> why, in the words of a response."""


@dataclass(frozen=True, slots=True)
class Response:
    """`asked.Asked` of a response. `echoed` are fields that the answer tells again."""

    works: Sequence[Work]
    stream: bool
    use: tools.ToolUse
    echoed: dict[str, Any]

    @property
    def shaped_by(self) -> str:
        return "tools" if self.use.forced else "text.format"

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        grown = Output(self.use, about.request_id)
        for delta in told[0].deltas:
            grown.take(delta)
        return self.told(about, grown, told[0].usage)

    def teller(self, about: About) -> Teller:
        from tidemill.doors.openai.response_events import Events

        return Events(self, about)

    def told(self, about: About, output: Output, usage: Usage | None, status: str = "") -> dict[str, Any]:
        """The response as it is now; `status` where it has not ended."""
        cut = CUT.get(output.finish)
        status = status or ("incomplete" if cut else "completed")
        return {
            "id": f"resp_{about.request_id}",
            "object": "response",
            "created_at": about.created_s,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": cut} if status == "incomplete" else None,
            "model": about.model,
            "output": output.items,
            **self.echoed,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "background": False,
            "service_tier": "default",
            "usage": None if usage is None else usage_of(usage),
        }


class Output:
    """The items of a response, as they grow: a message, calls, or both."""

    def __init__(self, use: tools.ToolUse, request_id: str) -> None:
        self.reader = calls.reader(use)
        self.items: list[dict[str, Any]] = []
        self.message: dict[str, Any] | None = None
        self.finish = ""
        self._request_id = request_id
        self._calls: dict[int, dict[str, Any]] = {}

    def take(self, delta: Delta) -> list[tuple[calls.Event, dict[str, Any], bool]]:
        """What happened: the event, its item, and whether that is a new one."""
        happened = [(each, *self._add(each)) for each in self.reader.take(delta)]
        if delta.finish:
            self.finish = delta.finish
            for item in self.items:
                item["status"] = "incomplete" if delta.finish in CUT and item is self.items[-1] else "completed"
        return happened

    def begin_message(self) -> dict[str, Any]:
        """The message, an empty one if there is none yet."""
        if self.message is None:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self.message = {
                "id": f"msg_{self._request_id}",
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [part],
            }
            self.items.append(self.message)
        return self.message

    def _add(self, told: calls.Event) -> tuple[dict[str, Any], bool]:
        if isinstance(told, calls.Words):
            fresh = self.message is None
            message = self.begin_message()
            message["content"][0]["text"] += told.text
            return message, fresh
        if isinstance(told, calls.Arguments):
            self._calls[told.call]["arguments"] += told.text
            return self._calls[told.call], False
        item = {
            "id": f"fc_{told.call_id.removeprefix('call_')}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": told.call_id,
            "name": told.name,
            "arguments": "",
        }
        self._calls[told.call] = item
        self.items.append(item)
        return item, True


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def read(fields: Fields, speaks: Speaks, limits: Limits) -> Response:
    """Raises the errors of `Fields`, each with its `param`."""
    if not speaks.chats:
        raise NotOffered("this model has no template for chat: ask it at /v1/completions", param="model")
    stream = fields.flag("stream", False)
    use = tools.read(fields, flat=True, speaks=speaks)
    told = _messages(fields, speaks)
    if not told:
        raise fields.wrong("input", "holds no message")
    text = fields.record("text")
    wanted = None
    if text is not None:
        wanted = formats.constraint(text.record("format"), nested=False, speaks=speaks)
        text.refuse("verbosity", "how much a model says is its own", "medium")
        text.end()
    how = sampling.read(fields, speaks, ("max_output_tokens",))
    metadata = harmless(fields)
    _refuse(fields)
    fields.end()
    work = talk.generate(told, use, speaks, how, wanted)
    return Response((work,), stream, use, _echoed(fields, how, use, metadata))


def _echoed(fields: Fields, how: Sampling, use: tools.ToolUse, metadata: dict[str, str]) -> dict[str, Any]:
    given = fields.values
    return {
        "instructions": given.get("instructions"),
        "max_output_tokens": how.max_tokens or None,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "metadata": metadata,
        "parallel_tool_calls": use.parallel,
        "tool_choice": given.get("tool_choice") or "auto",
        "tools": given.get("tools") or [],
        "text": given.get("text") or {"format": {"type": "text"}},
        "reasoning": {"effort": None, "summary": None},
        "user": given.get("user"),
    }


def _refuse(fields: Fields) -> None:
    fields.refuse("previous_response_id", "responses are not kept: send the whole conversation as input")
    fields.refuse("conversation", "conversations are not kept: send the whole of it as input")
    fields.refuse("background", "an answer is waited for", False)
    fields.refuse("reasoning", "how long a model reasons is its own")
    fields.refuse("prompt", "prompts are not kept: send instructions and input")
    fields.refuse("truncation", "nothing is cut silently", "disabled", "auto")  # one that is too long is refused
    fields.refuse("include", "there is nothing further to tell", [])
    fields.refuse("max_tool_calls", "no call is made here: functions are yours")
    fields.refuse("stream_options", "usage is always told", {}, {"include_obfuscation": False})
    fields.refuse("top_logprobs", "logprobs are told at /v1/chat/completions", 0)


def _messages(fields: Fields, speaks: Speaks) -> tuple[dict[str, Any], ...]:
    """`instructions` and `input` as the messages of a chat."""
    found: list[dict[str, Any]] = []
    instructions = fields.text("instructions", TEXT_MAX)
    if instructions:
        found.append({"role": "system", "content": instructions})
    fields.needed("input")
    given = fields.take("input")
    if isinstance(given, str):
        return (*found, {"role": "user", "content": given})
    if not isinstance(given, list):
        raise WrongDatatype(f"input is {short(given)}, expected a string or a list of items", param="input")
    called: set[str] = set()
    for item in fields.records("input", MESSAGES_MAX, 1):
        kind = item.take("type") or "message"
        item.ignore("id", "status")  # as our own answers have them
        if kind == "message":
            found.append(_message(item, speaks))
        elif kind == "function_call":
            _call(item, found, called, speaks)
        elif kind == "function_call_output":
            found.append(_output(item, called))
        else:
            place = item.place("type")
            raise NotOffered(
                f"{place} is {short(kind)}, expected message, function_call or function_call_output", param=place
            )
        item.end()
    return tuple(found)


def _message(item: Fields, speaks: Speaks) -> dict[str, Any]:
    item.needed("role")
    role = item.word("role", messages.ROLES[:-1], "")
    item.needed("content")
    item.ignore("phase")
    return {"role": messages.role_for(role, speaks), "content": messages.content(item, "content")}


def _call(item: Fields, found: list[dict[str, Any]], called: set[str], speaks: Speaks) -> None:
    """Calls that follow one another, or a message of the assistant's, are one message's."""
    for name in ("call_id", "name"):
        item.needed(name)
    call_id, name = (item.text(each, NAME_CHARACTERS_MAX) or "" for each in ("call_id", "name"))
    arguments = messages.arguments_of(item, speaks)
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    called.add(call_id)
    if found and found[-1]["role"] == "assistant":
        found[-1].setdefault("tool_calls", []).append(call)
    else:
        found.append({"role": "assistant", "content": None if speaks.calls else "", "tool_calls": [call]})


def _output(item: Fields, called: set[str]) -> dict[str, Any]:
    item.needed("call_id")
    call_id = item.text("call_id", NAME_CHARACTERS_MAX) or ""
    if call_id not in called:
        place = item.place("call_id")
        raise WrongValue(f"{place} is {short(call_id)}, and no item before it made that call", param=place)
    item.needed("output")
    return {"role": "tool", "tool_call_id": call_id, "content": messages.content(item, "output")}
