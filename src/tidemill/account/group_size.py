"""How many rows to wait for before a commit, learned from how many come; a pure decision without a clock."""

from __future__ import annotations

REST = 64
"""Groups that leave as they are after waiting for more was in vain."""


FORGET = 8
"""Each group forgets one in so many of the charges that were open at once."""


class GroupSize:
    """The number of rows that are worth holding a group for.

    A caller that asks one thing after the other brings one row at a time, and waiting for a second would only slow it
    down: nobody else has a charge open. Thirty at once bring thirty. So a group is held for more rows than those before
    it had while that succeeds, in growing steps, and when it was in vain the attempt rests for a while. A wait is never
    for more rows than there were charges open at once a little while ago.
    """

    __slots__ = ("_open", "_rest", "_step", "_worth")

    def __init__(self) -> None:
        self._worth = 1
        self._step = 1
        self._rest = 0
        self._open = 1

    def enough(self, rows: int, open_count: int) -> bool:
        """Whether a group of `rows` need not wait for more, while `open_count` charges are open, these included."""
        self._open = max(self._open, open_count)
        return rows >= self._open or rows >= self._worth + self._step

    def handed_over(self, rows: int, open_count: int) -> None:
        """Learn from a group that was handed over with `rows`, because they were enough or its time was up."""
        if rows >= self._worth + self._step:
            self._worth += self._step
            if self._step:
                self._step = self._worth
            elif self._rest:
                self._rest -= 1
            else:
                self._step = 1
        elif rows < self._open:
            if self._step:
                self._step, self._rest = 0, REST
            self._worth = max(rows, self._worth - -(-self._worth // 4))
        self._open = max(open_count, self._open - -(-self._open // FORGET))
