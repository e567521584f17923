"""Schemas and patterns: the good pass whole, the bad are refused in bounded time, calls keep their definitions."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_generator import an_instance
from tidemill.core.errors import NotOffered, WrongDatatype, WrongValue
from tidemill.doors.openai.pattern import REPEATS_MAX, why_not
from tidemill.doors.openai.schema import text_of
from tidemill.doors.openai.tools import Tool, ToolUse

LEAVES: Any = st.sampled_from(
    [
        {"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 9}, {"type": "boolean"}, {"type": "null"},
        {"enum": ["a", 1, None]}, {"const": 3}, {"type": ["string", "null"]},
        {"type": "string", "pattern": "^[a-z]{1,9}$"},
    ]
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda named: {
                "type": "object",
                "properties": named,
                "required": list(named),
                "additionalProperties": False,
            }
        ),
        inner.map(lambda each: {"type": "array", "items": each, "minItems": 0, "maxItems": 3}),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each}),
    ),
    max_leaves=12,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(
            ["type", "properties", "items", "$ref", "enum", "required", "anyOf", "pattern", "minLength", "maxLength",
             "not", "additionalProperties", "patternProperties", "const", "$defs", "minItems"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(SCHEMAS)
def test_good_schema_passes_unchanged(schema: Any) -> None:
    assert json.loads(text_of(schema, "schema")) == schema


@given(ANYTHING)
def test_any_other_is_judged_in_words_and_never_trips(schema: Any) -> None:
    refused = None
    try:
        text_of(schema, "schema")
    except (WrongValue, WrongDatatype, NotOffered) as error:
        refused = error
    assert refused is None or (refused.param or "").startswith("schema")


def test_references_that_meet_again_are_no_recursion() -> None:
    point = {"type": "object", "properties": {"x": {"type": "number"}}}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/p"}, "b": {"$ref": "#/$defs/p"}},
        "$defs": {"p": point},
    }
    assert json.loads(text_of(schema, "schema")) == schema


@pytest.mark.parametrize(
    "pattern",
    ["", "^a+$", "[a-z]{2,30}", r"\d{4}-\d{2}-\d{2}", "(ab|c)*", "(a{30}){30}", "[]a{9}]{3}", r"\{999999\}", "(?:a){3}",
     "a{,3}", "x{1000}"],
)  # fmt: skip
def test_plain_patterns_are_taken(pattern: str) -> None:
    assert why_not(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    ["(a{1000}){1000}", "(((a{99}){99}){99}){99}", "a{100000}", "(a", "[", "a{2,1}", "(?=a)", "(?<n>a)", r"(a)\1",
     "a" * 513, "(" * 300, "x{0,999999999}", "((a{40})b){40}", 7, None],
)  # fmt: skip
def test_hostile_patterns_are_refused_at_once(pattern: Any) -> None:
    began = time.monotonic()
    assert why_not(pattern)
    assert time.monotonic() - began < 1


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_nested_counts_multiply(a: int, b: int, c: int) -> None:
    pattern = f"((x{{{a}}}y){{{b}}}|z){{{c}}}"
    product = max(1, a) * max(1, b) * max(1, c)
    assert bool(why_not(pattern)) == (product > REPEATS_MAX)
    re.compile(pattern)


def test_schema_of_several_functions_keeps_what_each_defines() -> None:
    def tool(name: str, kind: str) -> Tool:
        return Tool(
            name,
            "",
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/same"}},
                "required": ["a"],
                "$defs": {"same": {"type": kind}},
            },
        )

    made = ToolUse((tool("f", "string"), tool("g", "integer")), "required").constraint()
    assert made is not None
    schema = json.loads(text_of(json.loads(made.text), "schema"))
    for index, kind in enumerate(("string", "integer")):
        call = schema["anyOf"][index]
        ref = call["properties"]["arguments"]["properties"]["a"]["$ref"]
        assert schema["$defs"][ref.removeprefix("#/$defs/")] == {"type": kind}
    assert an_instance(schema["anyOf"][0])["name"] == "f"
