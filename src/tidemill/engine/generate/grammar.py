"""A JSON Schema as a grammar of JSON without spare white space, for schemas that it knows whole; pure, in the child.

The engine's own grammar of a schema takes any white space between the parts, and a small model may go on with that for
ever. What is drawn by this one fits the schema, is written as `json.dumps` writes it, has its properties in the
schema's order, and numbers of 15 digits at most.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

REPEATS_MAX: Final = 1000
"""A string or list that may be longer has no end here."""
_NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$comment", "$id", "deprecated"})
_ROOT = frozenset({"$defs", "definitions"})
_BASICS = r"""char ::= [^"\\\x00-\x1F] | "\\" ["\\/bfnrt]
integer ::= "-"? ("0" | [1-9] [0-9]{0,14})
number ::= integer ("." [0-9]{1,15})?
boolean ::= "true" | "false"
null ::= "null"
nothing ::= ""
"""


class _Unknown(Exception):
    """The schema says something that is not known here."""


def grammar(schema: Any) -> str | None:
    """EBNF, or None for a schema that says more than is known here."""
    made = _Rules(schema)
    try:
        root = made.of(schema)
    except (_Unknown, RecursionError):
        return None
    return "".join(f"{name} ::= {text}\n" for name, text in [("root", root), *made.rules]) + _BASICS


class _Rules:
    """The rules of one schema; those of its definitions are made once, where they are first named."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._named: dict[str, str] = {}
        self.rules: list[tuple[str, str]] = []

    def of(self, schema: Any) -> str:
        """The rule of `schema`, by name. Raises `_Unknown`."""
        return self._rule(self._text(schema))

    def _rule(self, text: str) -> str:
        name = f"r{len(self.rules)}"
        self.rules.append((name, text))
        return name

    def _text(self, schema: Any) -> str:
        if not isinstance(schema, dict):
            raise _Unknown
        said = {key: value for key, value in schema.items() if key not in _NOTES}
        if schema is self._root:
            said = {key: value for key, value in said.items() if key not in _ROOT}
        if "$ref" in said:
            return self._ref(said)
        if "const" in said or "enum" in said:
            return _values(said)
        if "anyOf" in said:
            _only(said, {"anyOf"})
            return _either([self.of(each) for each in said["anyOf"]])
        kind = said.get("type")
        if isinstance(kind, list):
            return _either([self.of({**said, "type": each}) for each in kind])
        match kind:
            case "object":
                return self._object(said)
            case "array":
                return self._array(said)
            case "string":
                _only(said, {"type", "minLength", "maxLength"})
                return rf'"\"" char{_counted(said.get("minLength", 0), said.get("maxLength"))} "\""'
            case "integer" | "number" | "boolean" | "null":
                _only(said, {"type"})
                return str(kind)
        raise _Unknown

    def _ref(self, said: dict[str, Any]) -> str:
        _only(said, {"$ref"})
        ref = said["$ref"]
        if ref not in self._named:
            parts = str(ref).split("/")
            if len(parts) != 3 or parts[0] != "#" or parts[1] not in _ROOT or "~" in parts[2]:
                raise _Unknown
            self._named[ref] = name = f"d{len(self._named)}"
            self.rules.append((name, self._text(self._root.get(parts[1], {}).get(parts[2]))))
        return self._named[ref]

    def _object(self, said: dict[str, Any]) -> str:
        _only(said, {"type", "properties", "required", "additionalProperties"})
        properties, required = said.get("properties", {}), said.get("required", [])
        if not set(required) <= set(properties) or (not properties and said.get("additionalProperties") is not False):
            raise _Unknown
        after = fresh = "nothing"  # what may follow some property, and what may stand where there is none yet
        for name, each in reversed(properties.items()):
            pair = f'{_literal(_json(name))} ": " {self.of(each)}'
            if name in required:
                fresh, after = self._rule(f"{pair} {after}"), self._rule(f'", " {pair} {after}')
            else:
                fresh, after = self._rule(f"{pair} {after} | {fresh}"), self._rule(f'(", " {pair})? {after}')
        return f'"{{" {fresh} "}}"'

    def _array(self, said: dict[str, Any]) -> str:
        _only(said, {"type", "items", "minItems", "maxItems"})
        if "items" not in said:
            raise _Unknown
        low, high = said.get("minItems", 0), said.get("maxItems")
        if high == 0:
            return '"[]"'
        item = self.of(said["items"])
        more = _counted(max(low - 1, 0), None if high is None else high - 1)
        inner = f'{item} (", " {item}){more}'
        return f'"[" ({inner})? "]"' if low == 0 else f'"[" {inner} "]"'


def _only(said: dict[str, Any], known: Collection[str]) -> None:
    if not said.keys() <= set(known):
        raise _Unknown


def _either(names: Sequence[str]) -> str:
    if not names:
        raise _Unknown
    return " | ".join(names)


def _counted(low: Any, high: Any) -> str:
    if (
        type(low) is not int
        or low > REPEATS_MAX
        or (high is not None and (type(high) is not int or high > REPEATS_MAX))
    ):
        raise _Unknown
    if high is None:
        return f"{{{low},}}" if low else "*"
    return f"{{{low},{high}}}"


def _values(said: dict[str, Any]) -> str:
    _only(said, {"const", "enum", "type"} if "type" in said else {"const", "enum"})
    values = [said["const"]] if "const" in said else said["enum"]
    if "const" in said and "enum" in said:
        raise _Unknown
    kinds = {"string": str, "boolean": bool, "null": type(None), "integer": int}
    kind = kinds.get(str(said.get("type", "")))
    if "type" in said and (kind is None or any(type(each) is not kind for each in values)):
        raise _Unknown
    return _either([_literal(_json(each)) for each in values])


def _literal(text: str) -> str:
    """`text`, which holds no control character, as the grammar writes it."""
    return json.dumps(text, ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
