"""The tokens of a text longer than a tokenizer takes at once: of pieces, cut where that changes none; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

BYTES_OF_A_CHARACTER: Final = 4
"""At most, and no token stands for less than a byte."""
_SEAMS = (re.compile(r"(?<=\S\n)(?=\S)"), re.compile(r"(?<=\S)(?= \S)"))
"""Behind a single line's end between words, which is a token of its own wherever we looked; before a single space,
which goes with the word behind it. Of several spaces or lines, some go with what stands before them."""

Encode = Callable[[str, bool], list[int]]
"""(text, with special tokens) -> tokens"""


def tokens(text: str, encode: Encode, tokens_max: int) -> list[int]:
    """As `encode` would find them, had it no bound of `tokens_max`; special tokens before the text alone."""
    characters = max(tokens_max // BYTES_OF_A_CHARACTER // 2, 1)
    found: list[int] = []
    before = ""
    for piece in pieces(text, characters):
        if not before:
            found += _opened(piece, encode)
        else:
            head, both = encode(before, False), encode(before + piece, False)
            found += both[len(head) :] if both[: len(head)] == head else encode(piece, False)
        before = piece[_last_line(piece) :][-characters:]
    return found


def pieces(text: str, characters: int) -> Iterator[str]:
    """`text` in parts of at most so many characters, cut between words wherever there are any."""
    begin = 0
    while len(text) - begin > characters:
        end = _seam(text, begin + 1, begin + characters)
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _seam(text: str, begin: int, end: int) -> int:
    for seam in _SEAMS:
        found = [each.start() for each in seam.finditer(text, begin, end)]
        if found:
            return found[-1]
    return end


def _opened(piece: str, encode: Encode) -> list[int]:
    """With the special tokens that stand before a text, and without those behind it."""
    plain, special = encode(piece, False), encode(piece, True)
    for at in range(len(special) - len(plain) + 1):
        if special[at : at + len(plain)] == plain:
            return special[: at + len(plain)]
    return plain


def _last_line(piece: str) -> int:
    return piece.rstrip("\n").rfind("\n") + 1
