"""Schemas of answers: what is not held is refused at its place, and values that do not fit are not drawn."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.schema.forms import FORMS
from tidemill.core.schema.normal import normal
from tidemill.core.schema.numbers import between
from tidemill.core.schema.regular import NotRegular, held, length, matches, parsed, written

TEXT: Any = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"allOf": [TEXT, {"type": "integer"}]}, "s.allOf"),
        ({"type": "integer", "multipleOf": 7}, "s.multipleOf"),
        ({"type": "array", "items": TEXT, "uniqueItems": True}, "s.uniqueItems"),
        ({"type": "array", "contains": TEXT}, "s.contains"),
        ({"type": "object", "if": {}, "then": {}}, "s.if"),
        ({"type": "string", "not": {"const": "a"}}, "s.not"),
        ({"type": "object", "propertyNames": TEXT}, "s.propertyNames"),
        ({"type": "object", "patternProperties": {"^a$": TEXT}}, "s.patternProperties"),
        ({"type": "object", "properties": {"a": {**TEXT, "format": "roman"}}}, "s.properties.a.format"),
        ({**TEXT, "pattern": r"^a\b"}, "s.pattern"),
        ({**TEXT, "pattern": "(?=a)"}, "s.pattern"),
        ({**TEXT, "pattern": "a^b"}, "s.pattern"),
        ({**TEXT, "pattern": "^[^x]{1000}$"}, "s.pattern"),
        ({"oneOf": [TEXT, {"type": ["string", "null"]}]}, "s.oneOf"),
        ({"$ref": "#/$defs/a", "minLength": 3, "$defs": {"a": TEXT}}, "s.minLength"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {**TEXT, "not": {}}}}, "s.$defs.a.not"),
    ],
)
def test_what_no_answer_is_held_to_is_refused_at_its_place(schema: Any, param: str) -> None:
    with pytest.raises(NotOffered) as refused:
        normal(schema, "s")
    assert refused.value.param == param


@pytest.mark.parametrize(
    "schema",
    [
        {**TEXT, "minLength": 5, "pattern": "^a$"},
        {"enum": ["a"], **TEXT, "pattern": "b"},
        {"enum": [1, 2], "minimum": 5},
        {**TEXT, "format": "date", "maxLength": 3},
        {"const": "x", "enum": ["y"]},
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 4, "exclusiveMinimum": 3},
        {"type": "array", "items": False, "prefixItems": [TEXT], "minItems": 2},
        {"type": "object", "properties": {"a": TEXT}, "minProperties": 2, "additionalProperties": False},
    ],
)
def test_what_nothing_fits_is_refused(schema: Any) -> None:
    with pytest.raises(WrongValue):
        normal(schema, "s")


def test_values_that_do_not_fit_what_stands_beside_them_are_dropped() -> None:
    assert normal({"enum": ["a", "bb", 3], "type": "string", "minLength": 2}, "s") == {"enum": ["bb"]}
    assert normal({"enum": [1, 2, 7, 14], "multipleOf": 7}, "s") == {"enum": [7, 14]}


def test_a_list_closed_behind_its_first_items_is_taken() -> None:
    schema = {"type": "array", "items": False, "prefixItems": [{"type": "integer"}], "minItems": 1}
    found = normal(schema, "s")
    assert found == {"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1, "maxItems": 1}


def test_notes_and_definitions_that_nobody_names_hold_nothing() -> None:
    assert normal({"type": "null", "title": "t", "x-of": 1, "$defs": {"a": {"not": {}}}}, "s") == {"type": "null"}


@given(st.integers(-3000, 3000), st.integers(0, 4000), st.integers(-9000, 9000))
def test_whole_numbers_between_bounds_and_no_others(low: int, more: int, value: int) -> None:
    found = between({"minimum": low, "maximum": low + more}, whole=True)
    assert bool(re.fullmatch(found, str(value))) == (low <= value <= low + more)


@given(st.decimals(-50, 50, places=2), st.decimals(0, 9, places=1), st.decimals(-60, 60, places=4))
def test_numbers_with_decimals_lie_between_their_bounds(low: Any, more: Any, value: Any) -> None:
    low, high = float(low), round(float(low) + float(more) + 0.5, 2)
    found = between({"exclusiveMinimum": low, "maximum": high}, whole=False)
    text = f"{abs(value):f}"
    if value < 0:
        text = f"-{text}"
    assert not re.fullmatch(found, text) or low < float(value) <= high


@pytest.mark.parametrize("pattern", ["a", "^a|b$", "", r"^\S{2,5} .$", r'^"[^a]\\+$', "^(x|y)*z?$", *FORMS.values()])
def test_what_is_written_of_a_pattern_stays_within_a_string(pattern: str) -> None:
    text = written(parsed(pattern))
    for outside in ('"', "\n", "}", "\x00"):
        assert not re.fullmatch(f"({text})", outside) or (outside == "}" and not pattern.startswith("^"))
    for inside in ("a", "ab c", "zz z", "2024-02-29", '\\"é\\\\'):
        if re.fullmatch(f"({text})", inside):
            assert re.search(pattern, inside.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\"))


@given(st.integers(0, 12), st.integers(0, 12))
def test_lengths_hold_what_a_pattern_leaves_open(low: int, more: int) -> None:
    least, most = length(held(parsed("^a[b-d]*c{2,9}e?$"), low + 3, low + more + 3))
    assert low + 3 <= least
    assert most is not None
    assert most <= low + more + 3


@given(st.text('ab()[]{}|*+?\\^$.,-0123dwsSDWé"', max_size=12))
def test_any_pattern_is_read_or_refused(pattern: str) -> None:
    refused = ""
    try:
        written(parsed(pattern))
    except NotRegular as error:
        refused = str(error)
    assert refused or pattern is not None


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "^(a|aa)+$", "^(a?){300}$"])
def test_a_value_is_held_against_a_hostile_pattern_without_going_back(pattern: str) -> None:
    began = time.thread_time()
    for length_ in (30, 300):
        with pytest.raises((WrongValue, NotOffered)):
            normal({**TEXT, "enum": ["a" * length_ + "!"], "pattern": pattern}, "s")
    assert time.thread_time() - began < 2.0  # by going back it takes longer than anybody waits


def test_no_more_values_are_held_against_patterns_than_a_moment_allows() -> None:
    wanted = {**TEXT, "enum": [f"value {number}" for number in range(200)], "pattern": "^value"}
    with pytest.raises(NotOffered, match="beside patterns"):
        normal({"type": "object", "properties": {"a": wanted}}, "s")
    with pytest.raises(NotOffered) as refused:
        normal({"oneOf": [{"const": number} for number in range(100)]}, "s")
    assert refused.value.param == "s.oneOf"


@given(st.from_regex(r"\A[ab]{0,6}\Z"), st.sampled_from(["^a*$", "^(a|b){2,3}$", "b", "^(ab?)+$", "a$", "^b|a$"]))
def test_a_text_matches_as_python_finds(text: str, pattern: str) -> None:
    assert matches(parsed(pattern), text) == bool(re.search(pattern, text))
