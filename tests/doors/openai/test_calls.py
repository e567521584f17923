"""Calls are found in what a model says however its words are cut, and words that are no calls are never lost."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.generation import Delta
from tidemill.doors.openai import calls
from tidemill.doors.openai.tools import Tool, ToolUse
from tidemill.doors.openai.wording import CLOSE, OPEN

AUTO = ToolUse((Tool("f", "", {}), Tool("g", "", {})), "auto")
ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=2)
CALL = st.builds(
    lambda name, given, blank: f"{OPEN}{blank}{json.dumps({'name': name, 'arguments': given})}{blank}{CLOSE}",
    st.sampled_from("fg"),
    ARGUMENTS,
    st.sampled_from(["", "\n", " "]),
)
SCRAP = st.sampled_from(
    ["<", "<tool", OPEN, CLOSE, "{", '{"name": "f"}', " ", "\n", "tide", "🌊", f"{OPEN}nothing{CLOSE}"]
)


def read(parts: list[str], use: ToolUse = AUTO) -> tuple[str, list[tuple[str, Any]]]:
    """The words, and the calls with their arguments."""
    reader = calls.reader(use)
    deltas = [*(Delta(0, part) for part in parts), Delta(0, "", finish="stop")]
    events = [event for delta in deltas for event in reader.take(delta)]
    words, made, told = "", [], dict[int, str]()
    for event in events:
        if isinstance(event, calls.Words):
            words += event.text
        elif isinstance(event, calls.Begun):
            assert event.call == len(made)
            made.append(event.name)
            told[event.call] = ""
        else:
            told[event.call] += event.text
    assert reader.calls == len(made)
    return words, [(name, json.loads(told[index])) for index, name in enumerate(made)]


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({place % (len(text) + 1) for place in places})
    return [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True)]


@given(st.lists(CALL | SCRAP, max_size=8).map("".join), st.lists(st.integers(0, 1000), max_size=20))
def test_cuts_change_nothing(text: str, places: list[int]) -> None:
    assert read(cut(text, places)) == read([text])


@given(st.lists(SCRAP | st.text(max_size=5), max_size=8).map("".join))
def test_words_without_a_call_are_told_to_the_last_blank(text: str) -> None:
    words, made = read(list(text))
    if not made:
        assert words == text


@given(st.lists(st.tuples(st.sampled_from("fg"), ARGUMENTS), min_size=1, max_size=5), st.booleans())
def test_calls_come_back_as_they_were_made(wanted: list[tuple[str, dict[str, Any]]], listed: bool) -> None:
    told = [json.dumps({"name": name, "arguments": arguments}) for name, arguments in wanted]
    text = f"{OPEN}[{', '.join(told)}]{CLOSE}" if listed else "".join(f"{OPEN}{each}{CLOSE}\n" for each in told)
    assert read(list(text)) == ("", wanted)


def test_call_whose_end_was_never_said_is_a_call() -> None:
    assert read([f'{OPEN}{{"name": "f", "arguments": {{"a": 1}}}}']) == ("", [("f", {"a": 1})])


def test_call_of_what_nobody_offered_is_words() -> None:
    text = f'{OPEN}{{"name": "h", "arguments": {{}}}}{CLOSE}'
    assert read([text]) == (text, [])


def test_arguments_may_be_text_or_be_called_parameters() -> None:
    assert read([f'{OPEN}{{"name": "f", "arguments": "{{\\"a\\": 1}}"}}{CLOSE}'])[1] == [("f", {"a": 1})]
    assert read([f'{OPEN}{{"name": "f", "parameters": {{"a": 1}}}}{CLOSE}'])[1] == [("f", {"a": 1})]


def test_one_call_where_calls_side_by_side_are_not_wanted() -> None:
    text = f'{OPEN}{{"name": "f", "arguments": {{}}}}{CLOSE}' * 3
    assert len(read([text], ToolUse(AUTO.tools, "auto", parallel=False))[1]) == 1


def test_forced_call_that_was_cut_is_told_as_it_is() -> None:
    reader = calls.reader(ToolUse(AUTO.tools[:1], "named"))
    told = list(reader.take(Delta(0, '{"a": ', finish="length")))
    assert reader.finish(Delta(0, "", finish="length")) == "length"
    assert [each.text for each in told if isinstance(each, calls.Arguments)] == ['{"a": ']
    assert read(['{"name": "f", "argu'], ToolUse(AUTO.tools, "required")) == ('{"name": "f", "argu', [])
