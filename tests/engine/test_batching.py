from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.tensor import Array
from tidemill.engine.batching import at_hand, join, joining_key, part, rows_wanted, take, worth_waiting


@dataclass
class Waiter:
    key: Hashable | None
    rows: int
    length: int = 0


waiters = st.lists(st.builds(Waiter, st.sampled_from(["a", "b", None]), st.integers(1, 12)), min_size=1, max_size=30)


@given(waiters, st.integers(1, 10))
def test_batches_are_bounded_and_nobody_is_lost_or_overtaken(waiting: list[Waiter], rows_max: int) -> None:
    left = deque(waiting)
    taken: list[Waiter] = []
    while left:
        batch = take(left, rows_max, 1000)
        assert batch
        assert len(batch) == 1 or sum(each.rows for each in batch) <= rows_max
        assert len({each.key for each in batch}) == 1
        assert len(batch) == 1 or batch[0].key is not None
        taken += batch
    assert all(one is other for one, other in zip(taken, waiting, strict=True))


@given(waiters, st.integers(1, 10), st.integers(1, 5))
def test_one_that_is_passed_over_is_the_first_of_a_batch_no_later_than_in_its_turn(
    waiting: list[Waiter], rows_max: int, requests_max: int
) -> None:
    left = deque(waiting)
    places = {id(each): place for place, each in enumerate(waiting)}
    taken: list[int] = []
    while left:
        hand, oldest = at_hand(left, rows_max, True), left[0]
        batch = take(left, rows_max, requests_max, 0.0, True)
        assert batch[0] is oldest
        assert len({each.key for each in batch}) == 1
        assert len(batch) == 1 or sum(each.rows for each in batch) <= min(hand, rows_max)
        assert [places[id(each)] for each in left] == sorted(places[id(each)] for each in left)
        for key in "ab":  # of those that could be joined, none overtakes
            mine = [places[id(each)] for each in batch if each.key == key]
            assert all(place < places[id(each)] for place in mine for each in left if each.key == key)
        taken += map(id, batch)
    assert sorted(taken) == sorted(places)


@given(waiters, st.integers(1, 10))
def test_batch_is_as_large_as_the_order_allows(waiting: list[Waiter], rows_max: int) -> None:
    left = deque(waiting)
    batch = take(left, rows_max, 1000)
    if left and batch[0].key is not None and left[0].key == batch[0].key:
        assert sum(each.rows for each in batch) + left[0].rows > rows_max


@st.composite
def requests(draw: st.DrawFn) -> list[dict[str, Array]]:
    """Tensors of several requests that differ in dimension 0 alone."""
    sides = draw(st.dictionaries(st.sampled_from("xyz"), st.lists(st.integers(0, 3), max_size=2), min_size=1))
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    dtype = draw(st.sampled_from(["f4", "i8", object]))
    number = iter(range(10**6))
    return [
        {
            name: np.array([next(number) for _ in range(count * int(np.prod(rest, dtype=int)))], dtype).reshape(
                count, *rest
            )
            for name, rest in sides.items()
        }
        for count in counts
    ]


@given(requests())
def test_what_is_joined_is_parted_again(parts: list[dict[str, Array]]) -> None:
    assert len({joining_key(each, ()) for each in parts}) == 1
    counts = [next(iter(each.values())).shape[0] for each in parts]
    back = part(join(parts), counts)
    assert back is not None
    for one, other in zip(back, parts, strict=True):
        assert one.keys() == other.keys()
        for name in other:
            assert one[name].flags.c_contiguous
            np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_key_differs_in_all_that_cannot_be_joined() -> None:
    base = {"x": np.zeros((2, 3)), "y": np.zeros((2,))}
    assert joining_key(base, ()) == joining_key({"y": np.zeros((5,)), "x": np.zeros((5, 3))}, ())
    others = [
        joining_key(base | {"x": np.zeros((2, 4))}, ()),
        joining_key(base | {"x": np.zeros((2, 3, 1))}, ()),
        joining_key(base, ("a",)),
        joining_key(base, ("a", "b")),
        joining_key(base, ("b", "a")),
    ]
    assert len({joining_key(base, ()), *others}) == 6


def test_answer_of_another_length_is_not_parted() -> None:
    for strange in (np.zeros((4, 1)), np.zeros((1,)), np.zeros(()), np.zeros((0, 3))):
        assert part({"y": np.zeros((3, 1)), "z": strange}, [1, 2]) is None


@given(
    st.lists(st.builds(Waiter, st.just("a"), st.integers(1, 3), st.integers(1, 20)), min_size=1, max_size=20),
    st.floats(0.0, 0.9),
)
def test_no_batch_is_padded_by_more_than_is_allowed(waiting: list[Waiter], waste_max: float) -> None:
    left = deque(waiting)
    while left:
        batch = take(left, 1000, 1000, waste_max)
        places = max(each.length for each in batch) * sum(each.rows for each in batch)
        real = sum(each.length * each.rows for each in batch)
        assert len(batch) == 1 or real >= (1.0 - waste_max) * places - 1e-9


@given(waiters, st.integers(1, 10))
def test_rows_at_hand_are_those_of_the_next_batch(waiting: list[Waiter], rows_max: int) -> None:
    rows = at_hand(deque(waiting), rows_max)
    taken = take(deque(waiting), rows_max, 1000)
    if waiting[0].key is None:
        assert rows == 0
    else:
        assert rows == min(sum(each.rows for each in taken), rows if len(taken) == 1 else 10**9)


@given(st.integers(1, 100), st.integers(1, 64), st.lists(st.integers(1, 64), max_size=4))
def test_preferred_sizes_are_filled_and_never_exceeded(rows: int, rows_max: int, preferred: list[int]) -> None:
    bound = rows_wanted(min(rows, rows_max), rows_max, preferred)
    assert bound <= rows_max
    assert bound == rows_max or (bound in preferred and bound <= rows)
    fitting = [size for size in preferred if size <= rows_max]
    if not worth_waiting(rows, rows_max, preferred):
        assert rows >= (max(fitting) if fitting else rows_max)
