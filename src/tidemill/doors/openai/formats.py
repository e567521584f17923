"""`response_format` (chat) and `text.format` (responses): what the words must be. Pure."""

from __future__ import annotations

from tidemill.core.generation import Constraint
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX, TOOL_TEXT_MAX
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.schema import text_of

KINDS = ("text", "json_object", "json_schema")


def constraint(given: Fields | None, nested: bool) -> Constraint | None:
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
        found = _schema(holder)
        if holder is not given:
            holder.end()
    given.end()
    return found


def _schema(holder: Fields) -> Constraint:
    holder.needed("name")
    holder.text("name", NAME_CHARACTERS_MAX)
    holder.text("description", TOOL_TEXT_MAX)
    holder.flag("strict", False)  # every schema is followed strictly
    holder.needed("schema")
    return Constraint("json_schema", text_of(holder.take("schema"), holder.place("schema")))
