"""Lines run in the gaps; a batch goes from state to state and never back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.serve.batch_state import ENDED, Seen, next_state
from tidemill.serve.gaps import next_job, pause_s, places

COUNTS = st.integers(0, 50)
ORDER = {"validating": 0, "in_progress": 1, "finalizing": 2, "cancelling": 2, **dict.fromkeys(ENDED, 3)}
STATES = st.sampled_from(sorted(ORDER))
SEEN = st.builds(
    Seen,
    left=st.none() | COUNTS,
    unreadable=st.booleans(),
    cancelled=st.booleans(),
    expired=st.booleans(),
    late=st.booleans(),
    at_work=st.integers(0, 3),
    written=st.booleans(),
)


@given(COUNTS, COUNTS, st.integers(-5, 50), COUNTS)
def test_lines_and_others_never_take_more_than_the_places(most: int, lines: int, others: int, waiting: int) -> None:
    found = places(most, lines, others, waiting)
    assert found >= 0
    assert found + lines + max(0, others) <= max(most, lines + max(0, others))
    if others > 0 and waiting > 0:
        assert found == 0
    if others <= 0 and lines == 0:
        assert found == most, "an idle model takes as many as it may, so that batches come to their end"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.uuids().map(str)), max_size=20),
    st.dictionaries(st.sampled_from("abc"), COUNTS),
)
def test_the_next_job_is_the_first_of_a_tenant_that_has_the_fewest(
    waiting: list[tuple[str, str]], running: dict[str, int]
) -> None:
    found = next_job(waiting, running)
    if found is None:
        assert not waiting
        return
    fewest = min(running.get(tenant, 0) for tenant, _ in waiting)
    assert found == next(index for index, (tenant, _) in enumerate(waiting) if running.get(tenant, 0) == fewest)


@given(st.integers(0, 10**9))
def test_pauses_grow_to_a_bound(tries: int) -> None:
    assert 0 < pause_s(tries) <= pause_s(tries + 1) <= 30


@given(STATES, SEEN)
def test_a_batch_never_goes_back_and_what_has_ended_stays(state: str, seen: Seen) -> None:
    after = next_state(state, seen)
    assert ORDER[after] >= ORDER[state]
    if state in ENDED:
        assert after == state
    if after in ENDED and state not in ENDED and after != "failed":
        assert seen.written
        assert not seen.at_work


@given(STATES, SEEN)
def test_a_batch_always_comes_to_its_end(state: str, seen: Seen) -> None:
    """With its lines done and its files written nothing holds it back."""
    seen = seen._replace(left=0, at_work=0, written=True)
    for _ in range(4):
        state = next_state(state, seen)
    assert state in ENDED


@given(STATES, SEEN)
def test_what_was_cancelled_is_never_told_as_completed(state: str, seen: Seen) -> None:
    after = next_state(state, seen._replace(cancelled=True))
    if state in ("validating", "in_progress", "cancelling"):
        assert after in ("cancelling", "cancelled", "failed")
