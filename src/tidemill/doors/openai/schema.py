"""Judges a JSON Schema before an engine compiles it into a grammar: bounded, without recursion, and satisfiable. Pure.

What is refused here is what can be told to be bad without trying: engines refuse more, each what it cannot do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tidemill.core.errors import WrongDatatype, WrongValue
from tidemill.core.schema.normal import KINDS, is_a, normal
from tidemill.core.text import short
from tidemill.doors.openai.pattern import why_not

SCHEMA_BYTES_MAX: Final = 64 * 1024
SCHEMA_DEPTH_MAX: Final = 32
SCHEMA_PARTS_MAX: Final = 4096
"""Subschemas, those behind a `$ref` counted each time that it is named."""
ENUM_MAX: Final = 1024
LEVELS_A_SCHEMA: Final = 2
"""A schema lies in `properties` or in a list, and that in the schema above."""
_RANGES = (
    ("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"), ("minLength", "maxLength"),
    ("minItems", "maxItems"), ("minProperties", "maxProperties"),
)  # fmt: skip
_COUNTS = tuple(word for pair in _RANGES[2:] for word in pair)


def text_of(schema: Any, param: str, held: bool = True) -> str:
    """The schema as JSON, once it is found good. Raises `WrongDatatype`, `WrongValue`, and `NotOffered` for a keyword
    that no answer is held to, all with a `param`. Where it is not `held` here but by another server, that judges it:
    then its size and its depth alone are bounded."""
    if not isinstance(schema, dict):
        raise WrongDatatype(f"{param} is {short(schema)}, expected a JSON Schema, an object", param=param)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise WrongValue(f"{param} is nested too deep, or holds what JSON cannot", param=param) from error
    if len(text) > SCHEMA_BYTES_MAX:
        raise WrongValue(f"{param} has {len(text)} characters, at most {SCHEMA_BYTES_MAX} are taken", param=param)
    if held:
        _Judge(schema, param).judge(schema, param, 0, ())
        normal(schema, param)
    elif _levels(schema) > SCHEMA_DEPTH_MAX * LEVELS_A_SCHEMA:
        raise WrongValue(f"{param} is nested deeper than {SCHEMA_DEPTH_MAX} schemas", param=param)
    return text


def _levels(value: Any) -> int:
    """How deep objects and lists lie in one another."""
    most, waiting = 0, [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        below = each.values() if isinstance(each, dict) else each if isinstance(each, list) else None
        if below is not None:
            most = max(most, depth)
            waiting += [(further, depth + 1) for further in below]
    return most


class _Judge:
    """Walks one schema; counts what it meets, and follows what it names."""

    def __init__(self, root: dict[str, Any], param: str) -> None:
        self._root = root
        self._param = param
        self._parts = 0

    def judge(self, schema: Any, path: str, depth: int, within: tuple[str, ...]) -> None:
        """`within` are the references that led here."""
        self._parts += 1
        if self._parts > SCHEMA_PARTS_MAX:
            raise self._bad(self._param, f"has more than {SCHEMA_PARTS_MAX} parts, those behind its references counted")
        if depth > SCHEMA_DEPTH_MAX:
            raise self._bad(path[:200], f"is nested deeper than {SCHEMA_DEPTH_MAX}")
        if schema is True:
            return
        if schema is False:
            raise self._bad(path, "is false, which nothing satisfies")
        if not isinstance(schema, dict):
            raise self._bad(path, f"is {short(schema)}, expected a JSON Schema")
        if "$ref" in schema:
            self._follow(schema["$ref"], path, depth, within)
        _check_values(schema, path, self._bad)
        below = list(_below(schema, path, self._bad))
        _check_object(schema, path, self._bad)
        for name, each in below:
            self.judge(each, f"{path}.{name}", depth + 1, within)

    def _follow(self, ref: Any, path: str, depth: int, within: tuple[str, ...]) -> None:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise self._bad(
                f"{path}.$ref", f"is {short(ref)}, expected a place in the same schema, such as #/$defs/name"
            )
        if ref in within or ref == "#":
            raise self._bad(f"{path}.$ref", f"leads back to {short(ref)}: a schema that recurses is not taken")
        found: Any = self._root
        for part in ref.removeprefix("#").strip("/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise self._bad(f"{path}.$ref", f"is {short(ref)}, which the schema does not hold")
            found = found[name]
        self.judge(found, path, depth + 1, (*within, ref))

    @staticmethod
    def _bad(path: str, what: str) -> WrongValue:
        return WrongValue(f"{path} {what}", param=path)


def _below(schema: dict[str, Any], path: str, bad: Any) -> Iterator[tuple[str, Any]]:
    """The subschemas; definitions are judged where they are named."""
    named = schema.get("properties", {})
    if not isinstance(named, dict):
        raise bad(f"{path}.properties", f"is {short(named)}, expected an object")
    yield from ((f"properties.{name}"[:100], each) for name, each in named.items())
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if word in schema:
            listed = schema[word]
            if not isinstance(listed, list) or not listed:
                raise bad(f"{path}.{word}", f"is {short(listed)}, expected a list with an entry")
            yield from ((f"{word}[{index}]", each) for index, each in enumerate(listed))
    if schema.get("items", False) is not False:  # `normal` counts what is left without
        yield "items", schema["items"]
    if not isinstance(schema.get("additionalProperties", True), bool):
        yield "additionalProperties", schema["additionalProperties"]


def _check_values(schema: dict[str, Any], path: str, bad: Any) -> None:
    """`type`, `enum`, `const`, ranges and patterns, one against the other."""
    kinds = _kinds(schema, path, bad)
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if "enum" in schema or values is not None:
        if not isinstance(values, list) or not 1 <= len(values) <= ENUM_MAX:
            raise bad(f"{path}.enum", f"is {short(values)}, expected a list of 1 to {ENUM_MAX} values")
        if kinds and not any(is_a(value, kind) for value in values for kind in kinds):
            raise bad(path, f"takes {short(values)} and is of type {' or '.join(kinds)}: nothing is both")
    for word in _COUNTS:
        count = schema.get(word, 0)
        if type(count) is not int or count < 0:
            raise bad(f"{path}.{word}", f"is {short(count)}, expected a whole number from 0")
    if type(schema.get("multipleOf", 1)) not in (int, float) or schema.get("multipleOf", 1) <= 0:
        raise bad(f"{path}.multipleOf", f"is {short(schema['multipleOf'])}, expected a number above 0")
    for low, high in _RANGES:
        bounds = [schema[word] for word in (low, high) if word in schema]
        if any(type(each) not in (int, float) for each in bounds):
            raise bad(f"{path}.{low if low in schema else high}", f"is {short(bounds[0])}, expected a number")
        if len(bounds) == 2 and (bounds[0] > bounds[1] or (low.startswith("excl") and bounds[0] == bounds[1])):
            raise bad(path, f"wants {low} {bounds[0]} and {high} {bounds[1]}: nothing is both")
    if "pattern" in schema and (why := why_not(schema["pattern"])):
        raise bad(f"{path}.pattern", why)


def _kinds(schema: dict[str, Any], path: str, bad: Any) -> list[str]:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or any(not isinstance(kind, str) or kind not in KINDS for kind in kinds):
        raise bad(f"{path}.type", f"is {short(kinds)}, expected one of {', '.join(KINDS)}")
    return kinds


def _check_object(schema: dict[str, Any], path: str, bad: Any) -> None:
    required = schema.get("required", [])
    if not isinstance(required, list) or any(not isinstance(name, str) for name in required):
        raise bad(f"{path}.required", f"is {short(required)}, expected a list of names")
    if schema.get("additionalProperties") is False:
        properties = schema.get("properties", {})
        missing = [name for name in required if name not in properties]
        if missing and "object" in _kinds(schema, path, bad):
            raise bad(f"{path}.required", f"wants {short(missing[0])}, which additionalProperties: false forbids")
