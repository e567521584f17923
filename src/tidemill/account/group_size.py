"""How many rows to wait for before a commit, learned from how many come; a pure decision without a clock."""

from __future__ import annotations

PROBE_EACH = 64
"""One group in so many is held for more than were seen to come, in case more do now."""


class GroupSize:
    """The number of rows that are worth holding a group for.

    A caller that asks one thing after the other brings one row at a time, and waiting for a second would only slow it
    down; thirty at once bring thirty. So: a group that had to be handed over by time is how many come; a group that
    filled up in time stands, and now and then twice as many are waited for.
    """

    __slots__ = ("_groups", "_probing", "_worth")

    def __init__(self) -> None:
        self._worth = 1
        self._groups = 0
        self._probing = False

    @property
    def target(self) -> int:
        return 2 * self._worth if self._probing else self._worth

    def handed_over(self, rows: int, rows_max: int) -> None:
        """Learn from a group of `rows`; none larger than `rows_max` is ever waited for."""
        if self._probing or rows < self._worth:
            self._worth = max(1, min(rows, rows_max))
        self._groups += 1
        self._probing = self._groups % PROBE_EACH == 0
