from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.compress.prune.front import front

points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)))


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@given(points)
def test_nothing_that_stays_is_beaten_and_all_that_goes_is(found: list[tuple[float, float]]) -> None:
    kept = front(found, lambda each: each)
    assert not any(beats(one, other) for one in found for other in kept)
    assert all(any(beats(one, other) or one == other for one in kept) for other in found)
    assert len(set(kept)) == len(kept)
