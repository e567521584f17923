"""The functions that a model may call, and which of them it must: read, and put into a schema. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tidemill.core.errors import NotOffered, WrongDatatype, WrongValue
from tidemill.core.generation import Calling, Constraint, Speaks
from tidemill.core.text import short
from tidemill.doors.openai.bounds import TOOL_TEXT_MAX, TOOLS_MAX
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.schema import text_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function; `parameters` is the JSON Schema of its arguments, `asked` all that was said of it."""

    name: str
    description: str
    parameters: dict[str, Any]
    asked: dict[str, Any] | None = None

    def told(self) -> dict[str, Any]:
        """In OpenAI's words, as templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": self.asked or function}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request may call. `how` is `none` (calls are not looked for), `auto` (the model chooses), `required` (one
    of `tools` is called) or `named` (the one of `tools` is called). `calling` is all that was asked, for a model that
    makes calls by itself."""

    tools: tuple[Tool, ...] = ()
    how: Literal["none", "auto", "required", "named"] = "none"
    parallel: bool = True
    calling: Calling | None = None

    @property
    def offered(self) -> tuple[Tool, ...]:
        """Those that the model is told of."""
        return () if self.how == "none" and self.calling is None else self.tools

    @property
    def forced(self) -> bool:
        """Whether the words must be a call."""
        return self.calling is None and self.how in ("required", "named")

    def constraint(self) -> Constraint | None:
        """What the words must be so that they are a call, None where they need not be."""
        if not self.forced:
            return None
        if len(self.tools) == 1:
            return Constraint("json_schema", json.dumps(self.tools[0].parameters, ensure_ascii=False))
        return Constraint("json_schema", self._schema())

    def beside(self, wanted: Constraint | None) -> Constraint | None:
        """`wanted` of the words where they are no calls; these fit their schemas then, too."""
        if wanted is None or self.how != "auto" or self.calling is not None:
            return wanted
        return msgspec.structs.replace(wanted, calls=self._schema(), parallel=self.parallel)

    def _schema(self) -> str:
        """Of one call, with its name."""
        definitions: dict[str, Any] = {}
        calls = [_call(tool, index, definitions) for index, tool in enumerate(self.tools)]
        schema: dict[str, Any] = {"anyOf": calls}
        if definitions:
            schema["$defs"] = definitions
        return json.dumps(schema, ensure_ascii=False)


def read(fields: Fields, flat: bool, speaks: Speaks) -> ToolUse:
    """`flat`: a function's name lies beside its `type`, as responses have it, not within `function`."""
    tools = tuple(_tool(each, flat, speaks) for each in fields.records("tools", TOOLS_MAX))
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            place = f"tools[{index}]{'' if flat else '.function'}.name"
            raise WrongValue(f"{place} is {name!r}, as another function is", param=place)
    parallel = fields.flag("parallel_tool_calls", True)
    choice, name = _choice(fields, flat, names)
    how = choice or "auto"
    if speaks.calls:
        given = None if fields.values.get("parallel_tool_calls") is None else parallel
        return ToolUse(tools, how if tools else "none", parallel, Calling(choice, name, given))
    return ToolUse(tuple(tool for tool in tools if not name or tool.name == name), how if tools else "none", parallel)


def _choice(
    fields: Fields, flat: bool, names: list[str]
) -> tuple[Literal["", "none", "auto", "required", "named"], str]:
    """`tool_choice`, "" where it is left out, and the name of the function that it means."""
    choice = fields.take("tool_choice")
    if choice is None:
        return "", ""
    if choice in ("none", "auto"):
        return choice, ""
    if not names:
        raise WrongValue("tool_choice wants a call, and there are no tools", param="tool_choice")
    if choice == "required":
        return "required", ""
    if isinstance(choice, str):
        raise fields.wrong("tool_choice", f"is {short(choice)}, expected none, auto, required or a function")
    name = _chosen(Fields(choice, "tool_choice", fields.lax), flat)
    if name not in names:
        raise WrongValue(f"tool_choice names {short(name)}, the tools are {short(names)}", param="tool_choice")
    return "named", name


def _chosen(choice: Fields, flat: bool) -> str:
    function = _function(choice, flat)
    name = function.text("name", 64) or ""
    _end(function, choice)
    return name


def _tool(given: Fields, flat: bool, speaks: Speaks) -> Tool:
    function = _function(given, flat)
    name = function.text("name", 64) or ""
    if not _NAME.fullmatch(name):
        raise function.wrong("name", f"is {short(name)}, expected 1 to 64 letters, digits, _ or -")
    description = function.text("description", TOOL_TEXT_MAX) or ""
    function.flag("strict", False)  # every call that is forced fits its schema
    parameters = function.take("parameters")
    if parameters is None:
        parameters = NOTHING
    place = function.place("parameters")
    text_of(parameters, place, held=not speaks.calls)
    if parameters.get("type", "object") != "object":
        raise WrongDatatype(f"{place}.type is {short(parameters['type'])}, expected object", param=f"{place}.type")
    _end(function, given)
    asked = None
    if speaks.calls:
        words = ("name", "description", "parameters", "strict")
        asked = {each: function.values[each] for each in words if function.values.get(each) is not None}
    return Tool(name, description, {"type": "object", **parameters}, asked)


def _function(given: Fields, flat: bool) -> Fields:
    """What names a function: `given` itself, or the record within."""
    given.needed("type")
    if given.take("type") != "function":
        place = given.place("type")
        raise NotOffered(f"{place} is {short(given.take('type'))}: functions alone are called here", param=place)
    function = given
    if not flat:
        given.needed("function")
        function = given.record("function") or given
    function.needed("name")
    return function


def _end(function: Fields, given: Fields) -> None:
    function.end()
    if function is not given:
        given.end()


def _call(tool: Tool, index: int, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call; what it defines goes to `definitions`, under names that do not meet."""
    parameters = dict(tool.parameters)
    for word in ("$defs", "definitions"):
        for name, each in (parameters.pop(word, None) or {}).items():
            definitions[f"{index}-{word.strip('$')}-{name}"] = _moved(each, index)
    return {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": [tool.name]}, "arguments": _moved(parameters, index)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, index: int) -> Any:
    """`schema` with its references to where its definitions went."""
    if isinstance(schema, list):
        return [_moved(each, index) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(each, index) for name, each in schema.items()}
    ref = schema.get("$ref")
    if isinstance(ref, str):
        for word in ("$defs", "definitions"):
            if ref.startswith(f"#/{word}/"):
                moved["$ref"] = f"#/$defs/{index}-{word.strip('$')}-{ref.removeprefix(f'#/{word}/')}"
    return moved
