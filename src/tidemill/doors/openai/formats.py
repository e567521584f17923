"""`response_format` (chat) and `text.format` (responses): what the words must be. Pure."""

from __future__ import annotations

from tidemill.core.generation import Constraint, Speaks
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX, TOOL_TEXT_MAX
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.schema import text_of

KINDS = ("text", "json_object", "json_schema")


def constraint(given: Fields | None, nested: bool, speaks: Speaks) -> Constraint | None:
    """`nested`: the schema lies in `json_schema`, as chat has it, not beside `type`, as responses do."""
    if given is None:
        return None
    given.needed("type")
    kind = given.word("type", KINDS, "text")
    found = None
    if kind == "json_object":
        found = Constraint("json")
    elif kind == "json_schema":
        holder = given
        if nested:
            given.needed("json_schema")
            holder = given.record("json_schema") or given
        found = _schema(holder, speaks)
        if holder is not given:
            holder.end()
    given.end()
    return found


def _schema(holder: Fields, speaks: Speaks) -> Constraint:
    holder.needed("name")
    name = holder.text("name", NAME_CHARACTERS_MAX) or ""
    description = holder.text("description", TOOL_TEXT_MAX) or ""
    strict = holder.flag("strict", False)
    holder.needed("schema")
    text = text_of(holder.take("schema"), holder.place("schema"), held=not speaks.schemas)
    if not speaks.schemas:
        return Constraint("json_schema", text)  # every schema is followed strictly, whatever it is called
    said = None if holder.values.get("strict") is None else strict
    return Constraint("json_schema", text, name, description, said)
