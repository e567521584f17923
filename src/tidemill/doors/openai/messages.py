"""The messages of a chat: roles, texts in parts, calls and what came of them; judged and made plain. Pure."""

from __future__ import annotations

import json
from typing import Any

from tidemill.core.errors import MissingInput, NotOffered, WrongDatatype, WrongValue
from tidemill.core.generation import Speaks
from tidemill.core.text import short
from tidemill.doors.openai.bounds import MESSAGES_MAX, NAME_CHARACTERS_MAX, PARTS_MAX, TEXT_MAX, TOOL_CALLS_MAX
from tidemill.doors.openai.fields import Fields

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_PARTS = ("text", "input_text", "output_text")


def read(fields: Fields, speaks: Speaks) -> tuple[dict[str, Any], ...]:
    """Each with `role` and `content`, a string; an assistant's calls have their arguments as objects.

    For a model that makes calls by itself they are as they were asked, but for texts in parts, which are joined."""
    fields.needed("messages")
    found: list[dict[str, Any]] = []
    called: set[str] = set()
    for given in fields.records("messages", MESSAGES_MAX, 1):
        given.needed("role")
        role = given.word("role", ROLES, "")
        message: dict[str, Any] = {"role": role_for(role, speaks)}
        name = given.text("name", NAME_CHARACTERS_MAX)
        if name and speaks.calls:
            message["name"] = name
        if role == "assistant":
            given.refuse("audio", "this model neither hears nor speaks aloud")
            given.refuse("function_call", "it is called tool_calls now")
            refusal = given.text("refusal", TEXT_MAX)
            if refusal and speaks.calls:
                message["refusal"] = refusal
            given.ignore("parsed", "annotations")  # as OpenAI's client keeps our answers
            calls = _calls(given, speaks)
            called |= {call["id"] for call in calls}
            if calls:
                message["tool_calls"] = calls
        if role == "tool":
            message["tool_call_id"] = _answered(given, called)
        if given.take("content") is None:
            if "tool_calls" not in message and "refusal" not in message:
                raise MissingInput(f"{given.place('content')} is missing", param=given.place("content"))
            message["content"] = None if speaks.calls else ""
        else:
            message["content"] = content(given, "content")
        given.end()
        found.append(message)
    return tuple(found)


def role_for(role: str, speaks: Speaks) -> str:
    """As the model knows it: templates know no developer."""
    return "system" if role == "developer" and not speaks.calls else role


def content(fields: Fields, name: str) -> str:
    """A text, or the texts of its parts, one behind the other."""
    value = fields.take(name)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        place = fields.place(name)
        raise WrongDatatype(f"{place} is {short(value)}, expected a string or a list of parts", param=place)
    texts = []
    for part in fields.records(name, PARTS_MAX):
        part.needed("type")
        kind = part.take("type")
        if kind not in TEXT_PARTS:
            place = part.place("type")
            raise NotOffered(f"{place} is {short(kind)}: this model reads text alone", param=place)
        part.needed("text")
        texts.append(part.text("text", TEXT_MAX) or "")
        part.ignore("annotations", "logprobs", "parsed")  # as our own answers have them, and OpenAI's client keeps them
        part.end()
    return "".join(texts)


def _calls(given: Fields, speaks: Speaks) -> list[dict[str, Any]]:
    calls = []
    for call in given.records("tool_calls", TOOL_CALLS_MAX):
        call.needed("id")
        call.needed("type")
        call.word("type", ("function",), "")
        call.needed("function")
        function = call.record("function") or call
        function.needed("name")
        name = function.text("name", NAME_CHARACTERS_MAX) or ""
        arguments = arguments_of(function, speaks)
        call_id = call.text("id", NAME_CHARACTERS_MAX) or ""
        calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
        call.ignore("index")  # as streams tell it
        call.end()
    return calls


def arguments_of(function: Fields, speaks: Speaks) -> dict[str, Any] | str:
    """As an object; as the text that it was for a model that makes calls by itself, which may make wrong ones."""
    text = function.text("arguments", TEXT_MAX) or "{}"
    function.ignore("parsed_arguments")  # as OpenAI's client keeps our answers
    function.end()
    if speaks.calls:
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise function.wrong("arguments", f"is {short(text)}, expected a JSON object") from error
    if not isinstance(found, dict):
        raise function.wrong("arguments", f"is {short(text)}, expected a JSON object")
    return found


def _answered(given: Fields, called: set[str]) -> str:
    given.needed("tool_call_id")
    call_id = given.text("tool_call_id", NAME_CHARACTERS_MAX) or ""
    if call_id not in called:
        place = given.place("tool_call_id")
        raise WrongValue(f"{place} is {short(call_id)}, and no message before it made that call", param=place)
    return call_id
