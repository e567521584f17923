"""When lines of batches run: only in the gaps that other requests leave; pure, used in the owner process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def places(most: int, lines: int, others: int, waiting: int) -> int:
    """How many more lines one model may begin now.

    `lines` of batches are under way at it, and `others` requests, each of which takes one of the `most` places; while
    any of `waiting` requests could be one of theirs, no line begins.
    """
    if others > 0 and waiting > 0:
        return 0
    return max(0, most - max(0, others) - lines)


def next_job(waiting: Sequence[tuple[str, str]], running: Mapping[str, int]) -> int | None:
    """Which of `waiting`, (tenant, id) in the order they came, begins next: the first of a tenant that has the fewest
    `running`. None where none waits."""
    if not waiting:
        return None
    return min(range(len(waiting)), key=lambda index: (running.get(waiting[index][0], 0), index))


def pause_s(tries: int, pause_s_max: float = 30.0) -> float:
    """How long a line that failed `tries` times waits before it is tried again."""
    return min(pause_s_max, 0.25 * 2.0 ** min(tries, 20))
