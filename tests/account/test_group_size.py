from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.account.group_size import PROBE_EACH, GroupSize


def rounds(size: GroupSize, comes: int, groups: int) -> list[int]:
    """Hand over `groups` groups when `comes` rows come within the time a group may be held; how large each was."""
    handed = []
    for _ in range(groups):
        rows = next((n for n in range(1, comes + 1) if size.enough(n)), comes)
        size.handed_over(rows)
        handed.append(rows)
    return handed


def test_a_caller_alone_waits_for_nobody() -> None:
    size = GroupSize()
    assert all(
        size.enough(1) or number % PROBE_EACH == PROBE_EACH - 1 for number in range(3) if not size.handed_over(1)
    )


def test_many_at_once_are_held_for_each_other_once_seen() -> None:
    size = GroupSize()
    rounds(size, 30, PROBE_EACH)
    assert set(rounds(size, 30, PROBE_EACH - 1)) == {30}


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_it_learns_of_more_and_of_fewer(first: int, then: int) -> None:
    size = GroupSize()
    rounds(size, first, PROBE_EACH)
    rounds(size, then, 2 * PROBE_EACH)
    assert rounds(size, then, PROBE_EACH // 2)[-1] == then
