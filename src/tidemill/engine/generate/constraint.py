"""What an answer must fit, in openvino-genai's words, and what is refused at a glance; pure, in every process.

Nesting and repetition cost a compiler of grammars stack and time out of all proportion; what passes here is still
compiled by the process that checks before the one that generates sees it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.generation import Constraint
from tidemill.core.schema.normal import normal
from tidemill.engine.generate.grammar import Unknown, grammar

TEXT_CHARACTERS_MAX: Final = 65_536
DEPTH_MAX: Final = 64
COUNT_MAX: Final = 10_000
COUNTS: Final = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
PARAM: Final = "response_format"
CALLS_PARAM: Final = "tools"
ANY_OBJECT: Final = '{"type":"object"}'


def words(constraint: Constraint) -> dict[str, str]:
    """Arguments of a `StructuredOutputConfig`. A JSON answer without a schema is an object, as OpenAI's is."""
    if constraint.calls:
        schema = normal(msgspec.json.decode(constraint.text or ANY_OBJECT), PARAM)
        call = normal(msgspec.json.decode(constraint.calls), CALLS_PARAM)
        return {"grammar": grammar(schema, call, constraint.parallel)}
    if constraint.kind == "json":
        return {"json_schema": ANY_OBJECT}
    if constraint.kind == "json_schema":
        schema = normal(msgspec.json.decode(constraint.text), PARAM)
        return {"grammar": grammar(schema)}
    return {constraint.kind: constraint.text}


def check(constraint: Constraint) -> None:
    """Raises `WrongValue` for what is not worth compiling."""
    text = constraint.text
    if constraint.calls:
        if constraint.kind not in ("json", "json_schema"):
            raise refused("calls stand beside JSON alone")
        _check_text(constraint.calls, CALLS_PARAM)
        _check_schema(constraint.calls, CALLS_PARAM)
    if constraint.kind == "json":
        return
    _check_text(text)
    if constraint.kind == "json_schema":
        _check_schema(text)
        return
    depth = most = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        most = max(most, depth)
    if most > DEPTH_MAX:
        raise refused(f"it nests {most} deep, at most {DEPTH_MAX} are compiled")


def _check_text(text: str, param: str = PARAM) -> None:
    if not text:
        raise refused("it is empty", param)
    if len(text) > TEXT_CHARACTERS_MAX:
        raise refused(f"it has {len(text)} characters, at most {TEXT_CHARACTERS_MAX} are compiled", param)
    if "\0" in text:
        raise refused("it holds a zero character", param)


def _check_schema(text: str, param: str = PARAM) -> None:
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise refused(f"it is no JSON: {error}", param) from error
    if not isinstance(schema, dict):
        raise refused("a schema is an object", param)
    _check_value(schema, 0, param)
    _check_normal(schema, param)


def _check_value(value: Any, depth: int, param: str) -> None:
    if depth > DEPTH_MAX:
        raise refused(f"it nests more than {DEPTH_MAX} deep", param)
    if isinstance(value, dict):
        for name, below in value.items():
            if name in COUNTS and isinstance(below, int) and below > COUNT_MAX:
                raise refused(f"{name} = {below}; at most {COUNT_MAX} are compiled", param)
            _check_value(below, depth + 1, param)
    elif isinstance(value, list):
        for below in value:
            _check_value(below, depth + 1, param)


def _check_normal(schema: dict[str, Any], param: str) -> None:
    """Raises `NotOffered`, `WrongValue`. Doors have judged what they took, other ways not."""
    try:
        grammar(normal(schema, param))
    except Unknown as error:
        raise NotOffered(f"what the answer must fit cannot be held: {error}", param=param) from error


def refused(why: str, param: str = PARAM) -> WrongValue:
    return WrongValue(f"what the answer must fit cannot be compiled: {why}", param=param)
