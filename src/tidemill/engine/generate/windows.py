"""How a text that is longer than a model's context is scored: windows that overlap, each token scored once; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from tidemill.core.errors import WrongValue


class Window(NamedTuple):
    """Tokens `begin` to `end` are read; those from `scored` on are scored, the others only stand before them."""

    begin: int
    scored: int
    end: int


def windows(tokens: int, size: int, stride: int) -> Iterator[Window]:
    """The first window begins with the text and scores all but its first token; each further one begins `stride`
    later and scores what the one before it had not reached, with at least `size - stride` tokens before that.

    Raises `WrongValue` for windows that cannot be laid out so.
    """
    if size < 2:
        raise WrongValue(f"window = {size}: must be at least 2 tokens, one of which stands before the other")
    if not 1 <= stride < size:
        raise WrongValue(f"stride = {stride}: must be at least 1 and less than the window of {size} tokens")
    reached = 1
    for begin in range(0, tokens, stride):
        end = min(begin + size, tokens)
        if end > reached:
            yield Window(begin, reached, end)
            reached = end
        if end == tokens:
            return


def perplexity(nats: float) -> float:
    """e to the mean negative log probability of a token; infinity where that is no float any more."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
