"""A schema as a grammar: what it lets through is JSON that fits."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.generation import CALL_TAGS
from tidemill.core.schema.normal import normal
from tidemill.engine.generate.grammar import grammar

LEAVES: Any = st.sampled_from(
    [
        {"type": "string"}, {"type": "string", "minLength": 1, "maxLength": 3}, {"type": "integer"}, {"type": "number"},
        {"type": "boolean"}, {"type": "null"}, {"enum": ["a\"\\", 'b\n', 1, None, "é"]}, {"const": {"a": [1]}},
        {"type": ["string", "null"]}, {"type": "string", "enum": ["x"]},
    ]
)  # fmt: skip


def an_object(named: dict[str, Any], needed: int) -> dict[str, Any]:
    required = [name for index, name in enumerate(named) if needed >> index & 1]
    return {"type": "object", "properties": named, "required": required, "additionalProperties": False}


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            an_object, st.dictionaries(st.sampled_from(["a", 'q"', "é", "d"]), inner, max_size=4), st.integers(0, 15)
        ),
        inner.map(lambda each: {"type": "array", "items": each, "minItems": 0, "maxItems": 2}),
        inner.map(lambda each: {"type": "array", "items": each, "minItems": 2}),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each, "title": "t"}),
    ),
    max_leaves=8,
)


@given(SCHEMAS, st.randoms(use_true_random=False))
def test_whatever_is_drawn_fits_the_schema(schema: dict[str, Any], chooser: random.Random) -> None:
    found = grammar(normal(schema, "s"))
    for _ in range(3):
        text = Drawn(found, chooser).rule("root")
        assert fits(json.loads(text), schema), text


@given(SCHEMAS, SCHEMAS, st.booleans(), st.randoms(use_true_random=False))
def test_whatever_is_drawn_beside_calls_fits_the_one_schema_or_the_others(
    schema: dict[str, Any], arguments: dict[str, Any], parallel: bool, chooser: random.Random
) -> None:
    call = an_object({"name": {"const": "f"}, "arguments": arguments}, 3)
    found = grammar(normal(schema, "s"), normal(call, "c"), parallel)
    for _ in range(3):
        text = Drawn(found, chooser).rule("root")
        begun, called = text.startswith(CALL_TAGS[0]), re.findall(f"{CALL_TAGS[0]}\n?(.*?)\n?{CALL_TAGS[1]}", text)
        assert begun == bool(called)
        assert all(fits(json.loads(each), call) for each in called)
        assert len(called) < 2 or parallel
        assert begun or fits(json.loads(text), schema), text


def test_calls_have_definitions_of_their_own() -> None:
    def named(kind: str) -> dict[str, Any]:
        return an_object({"a": {"$ref": "#/$defs/p"}}, 1) | {"$defs": {"p": {"type": kind}}}

    found = grammar(normal(named("null"), "s"), normal(named("boolean"), "c"))
    drawn = {Drawn(found, random.Random(seed)).rule("root").replace("\n", "") for seed in range(64)}  # noqa: S311
    calls = {f'{CALL_TAGS[0]}{{"a": {value}}}{CALL_TAGS[1]}' for value in ("true", "false")}
    assert drawn == {'{"a": null}', *calls}


def test_definitions_are_followed_and_may_meet_again() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/p"}, "b": {"$ref": "#/$defs/p"}},
        "required": ["a", "b"],
        "additionalProperties": False,
        "$defs": {"p": {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}},
    }
    found = grammar(normal(schema, "s"))
    assert json.loads(Drawn(found, random.Random(1)).rule("root")) == {"a": {"x": None}, "b": {"x": None}}  # noqa: S311


class Drawn:
    """Draws a text from a grammar, by chance; reads as much of EBNF as ours is written in."""

    def __init__(self, text: str, chooser: random.Random) -> None:
        self._rules = dict(line.split(" ::= ", 1) for line in text.splitlines())
        self._chooser = chooser

    def rule(self, name: str) -> str:
        text, end = self._either(self._rules[name], 0)
        assert end == len(self._rules[name]), (name, self._rules[name], end)
        return text

    def _either(self, source: str, at: int) -> tuple[str, int]:
        found = []
        while True:
            text, at = self._row(source, at)
            found.append(text)
            if source[at : at + 1] != "|":
                return self._chooser.choice(found), at
            at += 1

    def _row(self, source: str, at: int) -> tuple[str, int]:
        text = ""
        while at < len(source) and source[at] not in "|)":
            if source[at] == " ":
                at += 1
                continue
            start = at
            first, at = self._one(source, at)
            count = re.compile(r"\{(\d+),(\d*)\}|[*?]").match(source, at)
            if count is None:
                text += first
                continue
            low, high = (0, 1) if count[0] == "?" else (int(count[1] or 0), int(count[2] or 3 + int(count[1] or 0)))
            text += "".join(self._one(source, start)[0] for _ in range(self._chooser.randint(low, min(high, low + 3))))
            at = count.end()
        return text, at

    def _one(self, source: str, at: int) -> tuple[str, int]:
        if source[at] == '"':
            literal = re.compile(r'"(?:[^"\\]|\\.)*"').match(source, at)
            assert literal is not None
            return json.loads(literal[0]), literal.end()
        if source[at] == "(":
            text, at = self._either(source, at + 1)
            assert source[at] == ")"
            return text, at + 1
        if source[at] == "[":
            found = re.compile(r"\[(\\.|[^\]\\])+\]").match(source, at)
            assert found is not None
            inside = "abc🌊" if found[0][1] == "^" else "1" if "1" in found[0] or "0" in found[0] else '"\\/bfnrt'
            return self._chooser.choice(inside), found.end()
        name = re.compile(r"\w+").match(source, at)
        assert name is not None, source[at:]
        return self.rule(name[0]), name.end()


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """As JSON Schema has it, for the words that are used here."""
    if "anyOf" in schema:
        return any(fits(value, each) for each in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    python = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    if not any(isinstance(value, python[kind]) for kind in kinds):
        return False
    if isinstance(value, dict):
        known = schema["properties"]
        return set(schema["required"]) <= set(value) <= set(known) and all(
            fits(value[name], known[name]) for name in value
        )
    if isinstance(value, list):
        low, high = schema.get("minItems", 0), schema.get("maxItems", 10**6)
        return low <= len(value) <= high and all(fits(each, schema["items"]) for each in value)
    return not isinstance(value, str) or schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**6)
