"""What an answer must fit: what is refused at a glance."""

from __future__ import annotations

import json
import time

import pytest

from tidemill.core.errors import WrongValue
from tidemill.core.generation import CALL_TAGS, Constraint
from tidemill.engine.generate.constraint import ANY_OBJECT, check, words


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("json_schema", "", "empty"),
        ("json_schema", '{"type":', "no JSON"),
        ("json_schema", "true", "an object"),
        ("json_schema", '{"a":' * 100 + "1" + "}" * 100, "nests"),
        ("json_schema", "[" * 60_000, "no JSON"),
        ("json_schema", '{"maxLength": 100000}', "maxLength = 100000"),
        ("json_schema", json.dumps({"description": "x" * 70_000}), "characters"),
        ("regex", "(" * 100 + ")" * 100, "nests 100 deep"),
        ("regex", "a\0b", "zero character"),
        ("grammar", "root ::= " + "(" * 70, "nests"),
    ],
)
def test_hostile_ones_are_refused_at_once(kind: str, text: str, says: str) -> None:
    started = time.perf_counter()
    with pytest.raises(WrongValue, match=says) as refused:
        check(Constraint(kind, text))  # type: ignore[arg-type]
    assert refused.value.param == "response_format"
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("kind", "calls", "says", "param"),
    [
        ("json", '{"type":', "no JSON", "tools"),
        ("json_schema", '{"a":' * 100 + "1" + "}" * 100, "nests", "tools"),
        ("json", json.dumps({"description": "x" * 70_000}), "characters", "tools"),
        ("regex", '{"type": "object"}', "beside JSON alone", "response_format"),
    ],
)
def test_hostile_calls_beside_an_answer_are_refused_at_once(kind: str, calls: str, says: str, param: str) -> None:
    with pytest.raises(WrongValue, match=says) as refused:
        check(Constraint(kind, '{"type": "object"}', calls=calls))  # type: ignore[arg-type]
    assert refused.value.param == param


def test_usual_ones_pass_and_json_alone_is_an_object() -> None:
    check(Constraint("json_schema", '{"type": "object", "properties": {"a": {"maxLength": 100}}}'))
    check(Constraint("regex", "[0-9]{3}-(a|b)+"))
    check(Constraint("json"))
    check(Constraint("json", calls='{"type": "object"}'))
    assert CALL_TAGS[0] in words(Constraint("json", calls='{"type": "object"}'))["grammar"]
    assert words(Constraint("json")) == {"json_schema": ANY_OBJECT}
    assert words(Constraint("regex", "a+")) == {"regex": "a+"}
