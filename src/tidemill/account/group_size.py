"""How many rows to wait for before a commit, learned from how many come; a pure decision without a clock."""

from __future__ import annotations

PROBE_EACH = 64
"""One group in so many is held for as long as groups may be, to see how many rows come in that time."""


class GroupSize:
    """The number of rows that are worth holding a group for.

    A caller that asks one thing after the other brings one row at a time, and waiting for a second would only slow it
    down; thirty at once bring thirty. So now and then a group is held to the end of its time, and as many rows as came
    then are waited for afterwards; when they fail to come, fewer are.
    """

    __slots__ = ("_groups", "_worth")

    def __init__(self) -> None:
        self._worth = 1
        self._groups = 0

    def enough(self, rows: int) -> bool:
        """Whether a group of `rows` need not wait for more."""
        return rows >= self._worth and not self._probing

    def handed_over(self, rows: int) -> None:
        """Learn from a group that was handed over with `rows`."""
        if self._probing:
            self._worth = rows
        elif rows < self._worth:
            self._worth = max(rows, self._worth // 2)
        self._groups += 1

    @property
    def _probing(self) -> bool:
        return self._groups % PROBE_EACH == PROBE_EACH - 1
