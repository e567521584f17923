from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.account.group_size import REST, GroupSize


def rounds(size: GroupSize, comes: int, groups: int, open_count: int = 10_000) -> list[int]:
    """Hand over `groups` groups when `comes` rows come within the time a group may be held; how large each was."""
    handed = []
    for _ in range(groups):
        rows = next((n for n in range(1, comes + 1) if size.enough(n, open_count)), comes)
        size.handed_over(rows, open_count)
        handed.append(rows)
    return handed


def test_a_caller_alone_waits_for_nobody() -> None:
    size = GroupSize()
    for _ in range(1000):
        assert size.enough(1, 1)
        size.handed_over(1, 1)


@given(st.integers(1, 200))
def test_a_group_that_holds_all_that_is_open_leaves_at_once(open_count: int) -> None:
    size = GroupSize()
    rounds(size, 50, 100, 50)
    rounds(size, open_count, 100, open_count)
    assert size.enough(open_count, open_count)


def test_a_quick_caller_beside_many_slow_ones_is_seldom_held() -> None:
    size = GroupSize()
    waits = 0
    for _ in range(10 * REST):
        waits += not size.enough(1, 50)
        size.handed_over(1, 50)
    assert waits <= 12


def test_many_at_once_are_held_for_each_other_soon() -> None:
    size = GroupSize()
    rounds(size, 30, 8)
    assert set(rounds(size, 30, REST - 8)) <= set(range(22, 31))


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_it_learns_of_more_and_of_fewer(first: int, then: int) -> None:
    size = GroupSize()
    rounds(size, first, 3 * REST)
    rounds(size, then, 3 * REST)
    assert rounds(size, then, REST)[-1] >= then // 2


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=200))
def test_what_is_worth_waiting_for_stays_within_what_has_come(groups: list[tuple[int, int]]) -> None:
    size = GroupSize()
    for rows, others in groups:
        size.handed_over(rows, rows + others)
        assert size.enough(2 * max(row for row, _ in groups) + 1, 10_000)
