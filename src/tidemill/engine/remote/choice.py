"""Which upstream is asked next, which is left alone, and who may be asked again; pure decisions with the clock passed
in. Their state belongs to the loop of the model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

RETRIES_AT_ONCE = 10.0
"""Retries that may be saved up, and are there at the start: a few failures in a quiet hour are all asked again."""


class Standing:
    """What is known of one upstream: how it did, and until when it is left alone."""

    __slots__ = ("asked_count", "credit", "failed_count", "failures", "name", "paused_until", "trying", "weight")

    def __init__(self, name: str, weight: int) -> None:
        self.name = name
        self.weight = weight
        self.asked_count = 0
        self.failed_count = 0
        self.credit = 0
        self.failures = 0
        self.paused_until = 0.0
        self.trying = False
        """One request finds out whether it is well again."""

    def open(self, now: float) -> bool:
        """Whether it may be asked: it is well, or its pause is over and nobody is trying it."""
        if not self.paused_until:
            return True
        return now >= self.paused_until and not self.trying

    def asked(self) -> None:
        """A request is on its way there."""
        self.asked_count += 1
        self.trying = bool(self.paused_until)

    def well(self) -> None:
        self.failures = 0
        self.paused_until = 0.0
        self.trying = False

    def busy(self) -> None:
        """It answered, and had no place: neither well nor sick."""
        self.trying = False

    def left(self) -> None:
        """The request that tried it ended without a word on how it does."""
        self.trying = False

    def failed(self, now: float, failures_max: int, pause_s: float) -> bool:
        """Whether this failure is the one that begins its pause."""
        self.failures += 1
        self.failed_count += 1
        self.trying = False
        if self.failures < failures_max:
            return False
        began = not self.paused_until
        self.paused_until = now + pause_s
        return began


def choose(all_of: Sequence[Standing], tried: Collection[str], now: float) -> Standing | None:
    """The next by smooth weighted round robin among those that are open and not yet `tried`; None where there is none.

    Each round every candidate gains its weight, the richest is chosen and pays the sum: over time each gets its share,
    and no one several times in a row while others wait.
    """
    candidates = [each for each in all_of if each.name not in tried and each.open(now)]
    if not candidates:
        return None
    for each in candidates:
        each.credit += each.weight
    chosen = max(candidates, key=lambda each: each.credit)
    chosen.credit -= sum(each.weight for each in candidates)
    return chosen


class Budget:
    """Retries as a share of requests, so that a fleet in trouble is not asked twice as much: each request brings
    `share` of a retry, each retry takes one."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = RETRIES_AT_ONCE if share else 0.0

    def request(self) -> None:
        self._left = min(self._left + self._share, RETRIES_AT_ONCE)

    def retry(self) -> bool:
        """Take one, where there is one."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
