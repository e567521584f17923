"""The states of a batch, and when one becomes the next; pure, used in the owner process."""

from __future__ import annotations

from typing import Final, NamedTuple

ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


class Seen(NamedTuple):
    """What is known of a batch. `left` counts lines without a result, None before they were counted."""

    left: int | None = None
    unreadable: bool = False
    cancelled: bool = False
    expired: bool = False
    late: bool = False
    """Lines were given up because its time was over."""
    at_work: int = 0
    written: bool = False
    """Its files are whole on disk."""


def next_state(state: str, seen: Seen) -> str:
    """The state after `state`, itself where it stays.

    validating -> failed | in_progress | cancelling; in_progress -> finalizing | cancelling | failed; finalizing ->
    completed | expired; cancelling -> cancelled. What has ended stays. None ends while a line is at work: a line that
    was begun is paid for, and its answer is kept.
    """
    if state == "validating":
        if seen.unreadable:
            return "failed"
        if seen.cancelled:
            return "cancelling"
        return state if seen.left is None else "in_progress"
    if state == "in_progress":
        if seen.cancelled:
            return "cancelling"
        if seen.unreadable:
            return "failed"
        return "finalizing" if seen.expired or seen.left == 0 else state
    if state == "finalizing" and seen.written and not seen.at_work:
        return "expired" if seen.late else "completed"
    if state == "cancelling" and seen.written and not seen.at_work:
        return "cancelled"
    return state
