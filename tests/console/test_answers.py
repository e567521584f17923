"""Answers are known by their shape, and whatever comes is answered with something."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.console import answers
from tidemill.console.answers import ROWS_MAX, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
FIELDS = ("label", "score", "text", "box", "midi", "note", "start_s", "end_s", "strength", "step", "value", "index")


def told(value: Any) -> answers.Answer:
    return read(json.dumps({"predictions": value}).encode())


def test_each_kind_of_answer_is_read() -> None:
    assert told([{"label": "cat", "score": 0.9}, {"label": 7, "score": 0.1}]) == answers.Classes(
        [("cat", 0.9), ("7", 0.1)]
    )
    assert told([{"text": "2.40", "score": 0.99, "box": [[1, 2], [3, 2], [3, 4], [1, 4]]}]) == answers.Lines(
        [("2.40", 0.99, ((1.0, 2.0), (3.0, 2.0), (3.0, 4.0), (1.0, 4.0)))]
    )
    assert told([{"midi": 69, "note": "A4", "start_s": 0, "end_s": 2.0, "strength": 0.8}]) == answers.Notes(
        [(69, "A4", 0.0, 2.0, 0.8)]
    )
    assert told([{"start_s": 0.5, "end_s": 1.5, "score": 0.7}]) == answers.Stretches([(0.5, 1.5, 0.7)])
    assert told([{"index": "2003", "step": 1, "value": 3.5}, {"step": 2, "value": 4}]) == answers.Forecast(
        [("2003", 3.5), ("2", 4.0)]
    )
    assert told([3.0, 4.0]) == answers.Vector(2, 5.0, [3.0, 4.0])
    assert told("Mühle") == answers.Words("Mühle")
    assert told([]) == answers.Nothing()


def test_tensors_are_told_by_shape_and_range() -> None:
    body = json.dumps({"outputs": {"a": [[1.0, -2.0, 3.0]], "s": ["x"], "ragged": [[1], [1, 2]]}}).encode()
    found = read(body)
    assert isinstance(found, answers.Outputs)
    assert [(each.name, each.shape, each.least, each.most) for each in found.rows] == [
        ("a", (1, 3), -2.0, 3.0),
        ("s", (1,), None, None),
        ("ragged", (2,), None, None),
    ]
    assert read(b'{"outputs": 4.5}') == answers.Outputs([answers.Output("", (), [4.5], 4.5, 4.5)])


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b"{}", b'{"predictions": 3}', b"\xff", b"<html>"])
def test_what_is_no_answer_is_other(body: bytes) -> None:
    assert read(body) == answers.Other()


@given(JSON)
def test_any_json_is_answered_with_something(value: Any) -> None:
    read(json.dumps({"predictions": value}, allow_nan=True).encode())
    read(json.dumps({"outputs": value}, allow_nan=True).encode())


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON), min_size=1, max_size=3))
def test_rows_with_wrong_values_are_not_drawn(rows: list[dict[str, Any]]) -> None:
    read(json.dumps({"predictions": rows}).encode())


def test_rows_are_bounded() -> None:
    found = told([{"label": "x", "score": 0.0}] * (ROWS_MAX + 5))
    assert isinstance(found, answers.Classes)
    assert len(found.rows) == ROWS_MAX
