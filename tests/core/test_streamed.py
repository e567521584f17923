"""Server-sent events come out whole, however the network cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import ServerRefused
from tidemill.core.streamed import EVENT_BYTES_MAX, EventReader

LINES = st.binary(max_size=20).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=6), ENDS, st.lists(st.integers(0, 400), max_size=6))
def test_events_do_not_depend_on_the_cuts(events: list[list[bytes]], end: bytes, cuts: list[int]) -> None:
    told = b"".join(
        b": a comment" + end + b"event: named" + end + b"".join(b"data: " + line + end for line in each) + end
        for each in events
    ) + b"data: cut off"  # fmt: skip
    reader, found, at = EventReader(), [], 0
    for cut in [*sorted(cuts), len(told)]:
        found += reader.feed(told[at:cut])
        at = max(at, cut)
    assert found == [b"\n".join(each) for each in events]


def test_a_line_separator_of_unicode_ends_no_line() -> None:
    assert EventReader().feed("data: one\u2028two\x0bthree\n\n".encode()) == ["one\u2028two\x0bthree".encode()]


def test_an_event_without_end_is_given_up() -> None:
    reader = EventReader()
    for _ in range(EVENT_BYTES_MAX // 2**16):
        reader.feed(b"data:" + b"x" * 2**16 + b"\n")
    with pytest.raises(ServerRefused, match="more than"):
        reader.feed(b"data: x\n")
