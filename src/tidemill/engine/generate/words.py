"""From tokens to text as they come: whole characters only, and nothing past a stop string; runs in the child."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

_DECODER = codecs.getincrementaldecoder("utf-8")


class Words:
    """The text of one choice. Life: `add` as tokens come, then `end` once, unless a stop string was met.

    `spelling` has the bytes that each token stands for, in its place; those of the tokens that steer are empty.
    """

    def __init__(self, spelling: Sequence[bytes], stops: Sequence[str] = ()) -> None:
        self._spelling = spelling
        self._stops = stops
        self._decoder = _DECODER("replace")
        self._held = ""
        self.stopped = False

    def add(self, tokens: Iterable[int]) -> str:
        """What may be told now; with a stop string in it, what stands before, and `stopped` is true."""
        spelling = self._spelling
        text = self._held + self._decoder.decode(b"".join(spelling[token] for token in tokens))
        if not self._stops:
            return text
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.stopped, self._held = True, ""
            return text[:found]
        keep = held_back(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was held back and became no stop string; half a character becomes U+FFFD."""
        text = self._held + self._decoder.decode(b"", True)
        self._held = ""
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return text[:found]
        return text


def held_back(text: str, stops: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `stops`, none of which is in it."""
    return max((_overlap(text, stop) for stop in stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that begins `stop`."""
    first = stop[0]
    at = text.find(first, max(len(text) - len(stop) + 1, 0))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(first, at + 1)
    return 0
