"""A JSON Schema as a grammar of JSON without spare white space; pure, in the child.

The engine's own grammar of a schema takes any white space between the parts, and a small model may go on with that for
ever. What is drawn by this one fits the schema, is written as `json.dumps` writes it, has its properties in the
schema's order, and numbers of 15 digits at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from tidemill.core.generation import CALL_TAGS
from tidemill.core.text import short

REPEATS_MAX: Final = 1000
"""A string or list that may be longer is not drawn longer."""
_BASICS = r"""char ::= [^"\\\x00-\x1F] | "\\" ["\\/bfnrt]
integer ::= "-"? ("0" | [1-9] [0-9]{0,14})
number ::= integer ("." [0-9]{1,15})?
boolean ::= "true" | "false"
null ::= "null"
nothing ::= ""
text ::= "\"" char* "\""
any ::= text | number | boolean | null | "[" (any (", " any)*)? "]" | "{" (text ": " any (", " text ": " any)*)? "}"
"""


class Unknown(Exception):
    """The words say what of the schema is not known here."""


def grammar(schema: Any, call: Any = None, parallel: bool = False) -> str:
    """EBNF of a schema that was made `normal` before; with a `call`, another such, its sentences may be calls instead,
    one, or more where they are `parallel`. Raises `Unknown`."""
    made, calls = _Rules(schema, "r"), _Rules(call, "c")
    try:
        root = made.of(schema)
        if call is not None:
            opened, closed = map(_literal, CALL_TAGS)
            # Models write line breaks within and between calls, or do not: whichever, one.
            one = calls.rule(f'{opened} "\\n"? {calls.of(call)} "\\n"? {closed}')
            more = f' ("\\n"? {one})*' if parallel else ""
            root = f"{root} | {one}{more}"
    except RecursionError as error:
        raise Unknown("it nests too deep") from error
    rules = [("root", root), *made.rules, *calls.rules]
    return "".join(f"{name} ::= {text}\n" for name, text in rules) + _BASICS


class _Rules:
    """The rules of one schema; those of its definitions are made once, where they are first named."""

    def __init__(self, root: Any, prefix: str) -> None:
        """`prefix` begins the name of each rule."""
        self._root = root
        self._prefix = prefix
        self._named: dict[str, str] = {}
        self.rules: list[tuple[str, str]] = []

    def of(self, schema: Any) -> str:
        """The rule of `schema`, by name. Raises `_Unknown`."""
        return self.rule(self._text(schema))

    def rule(self, text: str) -> str:
        name = f"{self._prefix}{len(self.rules)}"
        self.rules.append((name, text))
        return name

    def _text(self, said: Any) -> str:
        if "$ref" in said:
            return self._ref(said["$ref"])
        if "enum" in said:
            return " | ".join(_literal(_json(each)) for each in said["enum"])
        if "anyOf" in said:
            return " | ".join(self.of(each) for each in said["anyOf"])
        kind = said.get("type", "any")
        pattern = str(said["pattern"])[1:-1].replace("()", '""') if "pattern" in said else None
        match kind:
            case "object":
                return self._object(said) if "properties" in said else self._map(said)
            case "array":
                return self._array(said)
            case "string" if pattern is not None:
                return rf'"\"" {pattern} "\""'
            case "string":
                return rf'"\"" char{_counted(said.get("minLength", 0), said.get("maxLength"))} "\""'
        return str(kind) if pattern is None else pattern

    def _ref(self, ref: str) -> str:
        if ref not in self._named:
            found = self._root
            for part in ref.removeprefix("#").strip("/").split("/"):
                name = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, dict) or name not in found:
                    raise Unknown(f"$ref {short(ref)} leads nowhere that is known here; name it in $defs")
                found = found[name]
            self._named[ref] = name = f"{self._prefix}d{len(self._named)}"
            self.rules.append((name, self._text(found)))
        return self._named[ref]

    def _object(self, said: dict[str, Any]) -> str:
        properties, required = said["properties"], said["required"]
        after = fresh = "nothing"  # what may follow some property, and what may stand where there is none yet
        for name, each in reversed(properties.items()):
            pair = f'{_literal(_json(name))} ": " {self.of(each)}'
            if name in required:
                fresh, after = self.rule(f"{pair} {after}"), self.rule(f'", " {pair} {after}')
            else:
                fresh, after = self.rule(f"{pair} {after} | {fresh}"), self.rule(f'(", " {pair})? {after}')
        return f'"{{" {fresh} "}}"'

    def _map(self, said: dict[str, Any]) -> str:
        """Names of the model's own."""
        if said.get("maxProperties") == 0:
            return '"{}"'
        return self._listed(said.get("minProperties", 0), said.get("maxProperties"), "{}",
                            f'text ": " {self.of(said["additionalProperties"])}')  # fmt: skip

    def _array(self, said: dict[str, Any]) -> str:
        low, high = said.get("minItems", 0), said.get("maxItems")
        if high == 0:
            return '"[]"'
        if "prefixItems" in said:
            return self._tuple(said["prefixItems"], said.get("items"), low, high)
        return self._listed(low, high, "[]", self.of(said.get("items", {})))

    def _listed(self, low: int, high: int | None, ends: str, item: str) -> str:
        more = _counted(max(low - 1, 0), None if high is None else high - 1)
        inner = f'{item} (", " {item}){more}'
        return f'"{ends[0]}" ({inner})? "{ends[1]}"' if low == 0 else f'"{ends[0]}" {inner} "{ends[1]}"'

    def _tuple(self, first: Sequence[Any], rest: Any, low: int, high: int | None) -> str:
        """A list that begins with one of each of `first`."""
        parts = '", " '.join(f"{self.of(each)} " for each in first)
        if high == len(first):
            return f'"[" {parts}"]"'
        more = _counted(max(0, low - len(first)), None if high is None else high - len(first))
        return f'"[" {parts}(", " {self.of({} if rest is None else rest)}){more} "]"'


def _counted(low: int, high: int | None) -> str:
    if low > REPEATS_MAX:
        raise Unknown(f"{low} characters or items at least; at most {REPEATS_MAX} are asked for")
    if high is None:
        return f"{{{low},}}" if low else "*"
    return f"{{{low},{min(high, REPEATS_MAX)}}}"


def _literal(text: str) -> str:
    """`text`, which holds no control character, as the grammar writes it."""
    return json.dumps(text, ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
