"""Puts functions, calls and what came of them into words, for models whose template knows none of these. Pure.

The words are those that many models were trained on: calls between `<tool_call>` tags, answers between
`<tool_response>` tags.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tidemill.core.generation import CALL_TAGS
from tidemill.doors.openai.tools import Tool, ToolUse

OPEN, CLOSE = CALL_TAGS


def worded(messages: Sequence[dict[str, Any]], use: ToolUse) -> tuple[dict[str, Any], ...]:
    """`messages` as plain ones: role and content alone, and the functions in the system message."""
    plain = [_plain(each) for each in messages]
    if not use.offered:
        return tuple(plain)
    told = _offer(use)
    if plain and plain[0]["role"] == "system":
        return ({"role": "system", "content": f"{plain[0]['content']}\n\n{told}"}, *plain[1:])
    return ({"role": "system", "content": told}, *plain)


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message["role"], message.get("content") or ""
    if role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [
        f"{OPEN}\n{_json({'name': call['function']['name'], 'arguments': call['function']['arguments']})}\n{CLOSE}"
        for call in message.get("tool_calls", ())
    ]
    return {"role": role, "content": "\n".join([content, *calls] if content else calls) if calls else content}


def _offer(use: ToolUse) -> str:
    listed = "\n".join(_json(_shown(tool)) for tool in use.offered)
    head = f"These functions can be called; each line is one, with a JSON schema of its arguments.\n{listed}\n"
    if use.how == "auto":
        return (
            f"{head}To call one, write nothing but {OPEN}"
            f'{{"name": "...", "arguments": {{...}}}}{CLOSE}, and once more for each further call.'
            " Where no function helps, answer in words."
        )
    if len(use.tools) == 1:
        return f"{head}Call {use.tools[0].name} now: answer with its arguments, one JSON object, and nothing else."
    return f'{head}Call one of them now: answer with {{"name": "...", "arguments": {{...}}}} and nothing else.'


def _shown(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
