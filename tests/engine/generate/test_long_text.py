"""Tokens of texts that are longer than a tokenizer takes at once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.engine.generate import long_text

BOS, EOS = -1, -2
WORDS = re.compile(r" ?\w+| ?[^\s\w]+|\s+(?!\S)|\s+")
"""How byte-level tokenizers cut texts before they look for tokens."""
TEXTS = st.lists(
    st.sampled_from(["mill", " river", "\n", "\n\n", " ", "  ", "tide", ".", "größte", " 🌊"]), max_size=80
)


def words(text: str, special: bool) -> list[int]:
    found = [hash(each) for each in WORDS.findall(text)]
    return [BOS, *found, EOS] if special else found


def dummy_space(text: str, special: bool) -> list[int]:
    """A tokenizer that begins every text with a space, as those of SentencePiece do."""
    return words(" " + text, special)


@given(TEXTS)
def test_pieces_are_the_text(parts: list[str]) -> None:
    text = "".join(parts)
    found = list(long_text.pieces(text, 12))
    assert "".join(found) == text
    assert all(0 < len(each) <= 12 for each in found)


@pytest.mark.parametrize("encode", [words, dummy_space])
@pytest.mark.parametrize("tokens_max", [200, 400, 10_000])
def test_tokens_of_pieces_are_those_of_the_whole(encode: long_text.Encode, tokens_max: int) -> None:
    text = "The mill by the river turned.\n\n  Its wheel, too: it was large,\nand old.\n" * 40
    asked: list[str] = []

    def bounded(part: str, special: bool) -> list[int]:
        asked.append(part)
        return encode(part, special)

    assert long_text.tokens(text, bounded, tokens_max) == encode(text, True)[:-1]
    assert all(len(each.encode()) <= tokens_max for each in asked)


@pytest.mark.parametrize("text", ["x" * 5000, "\n" * 5000, "🌊" * 3000, ""])
def test_a_text_without_words_is_cut_anyhow(text: str) -> None:
    def letters(part: str, special: bool) -> list[int]:
        return [ord(each) for each in part]

    assert long_text.tokens(text, letters, 512) == letters(text, False)
