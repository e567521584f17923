"""From tokens to text: whole characters, nothing past a stop string, and nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.engine.generate.words import Words, held_back

BYTES = [bytes([number]) for number in range(256)]
TEXTS = st.text(st.sampled_from("ab<|é潮🌊 \n"), max_size=40)
STOPS = st.lists(st.text(st.sampled_from("ab<|é潮🌊"), min_size=1, max_size=6), max_size=4)


def told(text: str, stops: list[str], sizes: list[int]) -> tuple[list[str], bool]:
    """The parts that are told of `text` when its bytes come as tokens, so many at a time."""
    words, data, parts = Words(BYTES, tuple(stops)), list(text.encode()), []
    turns = iter(sizes)
    while data and not words.stopped:
        size = next(turns, 1)
        parts.append(words.add(data[:size]))
        data = data[size:]
    if not words.stopped:
        parts.append(words.end())
    return parts, words.stopped


@given(TEXTS, STOPS, st.lists(st.integers(1, 5), max_size=60))
def test_told_is_what_stands_before_the_first_stop_string(text: str, stops: list[str], sizes: list[int]) -> None:
    parts, stopped = told(text, stops, sizes)
    whole = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert stopped == bool(whole)
    if whole and max(sizes, default=1) == 1:  # the one that is whole first ends it, wherever others began
        assert "".join(parts) == text[: min(whole)[1]]
    assert not any(stop in "".join(parts) for stop in stops)
    assert text.startswith("".join(parts))


@given(TEXTS, st.lists(st.integers(1, 5), max_size=60))
def test_without_stop_strings_all_is_told_in_whole_characters(text: str, sizes: list[int]) -> None:
    parts, _ = told(text, [], sizes)
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts)


@given(TEXTS, STOPS)
def test_no_more_is_held_back_than_may_begin_a_stop_string(text: str, stops: list[str]) -> None:
    keep = held_back(text, stops)
    longest = max((n for stop in stops for n in range(1, len(stop) + 1) if text.endswith(stop[:n])), default=0)
    assert keep <= longest
    assert keep == longest or any(text.endswith(stop) for stop in stops)


def test_half_a_character_at_the_end_is_told_as_one_that_is_none() -> None:
    words = Words(BYTES)
    assert words.add("🌊".encode()[:2]) == ""
    assert words.end() == "\ufffd"
