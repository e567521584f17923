"""Whether a quick batch is held for others to join, learned from how many joined those before; a pure decision."""

from __future__ import annotations

LOOKS_EACH = 32
"""One batch in so many is held although it is not worth it, to see whether it has become so."""
WORTH = 2.0
"""Requests of a held batch, on average, from which on holding one saves more than its turns of the loop cost."""
_SMOOTHING = 0.25


class Company:
    """HTTP's requests are read many at once, and join; gRPC hands its calls over one by one, and nobody comes while one
    is held."""

    __slots__ = ("_alone", "_average")

    def __init__(self) -> None:
        self._average = WORTH
        self._alone = 0

    def awaited(self) -> bool:
        """Whether the batch that begins now is to be held. One that is must be `held` afterwards."""
        if self._average >= WORTH:
            return True
        self._alone = (self._alone + 1) % LOOKS_EACH
        return not self._alone

    def held(self, requests: int) -> None:
        """Learn from a batch that was held, and held so many in the end."""
        self._average += _SMOOTHING * (requests - self._average)
