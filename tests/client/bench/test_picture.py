"""The plot of a terminal, and the PNG."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.bench.picture import HEIGHT, MARKS, PLAIN_MARKS, WIDTH, png, terminal
from tidemill.client.bench.statistics import Summary

positive = st.floats(1e-3, 1e6)


def told(rate: float, p50: float | None, p99: float | None, side: str = "this", load: str = "1 in flight") -> Summary:
    return Summary(side, load, 1, 1, 1, {}, rate, p50, p50, p99, None, 5.0, None, None, [])


@given(st.lists(st.tuples(positive, positive, positive), max_size=8), st.booleans())
def test_a_plot_has_its_size_whatever_is_in_it(points: list[tuple[float, float, float]], plain: bool) -> None:
    lines = terminal([told(*each) for each in points], plain=plain)
    if len({rate for rate, _, _ in points}) < 2:
        assert lines == []
        return
    assert len(lines) == HEIGHT + 3
    assert all(len(line) <= WIDTH + 10 for line in lines[:HEIGHT])
    text = "\n".join(lines[:HEIGHT])
    mark = (PLAIN_MARKS if plain else MARKS)[0]
    assert 1 <= text.count(mark[0]) + text.count(mark[1]) <= 2 * len(points)
    assert not plain or text.isascii()


def test_the_highest_and_rightmost_mark_stands_in_the_corner() -> None:
    lines = terminal([told(10, 1.0, 2.0), told(1000, 50.0, 100.0)], width=20, height=5)
    assert lines[0].endswith("○")
    assert lines[0].strip().startswith("100")
    assert "10" in lines[-2]
    assert "1000" in lines[-2]


def test_two_sides_have_marks_of_their_own() -> None:
    lines = terminal([told(10, 1.0, 2.0), told(20, 1.5, 4.0, "other")])
    assert {"●", "○", "■", "□"} <= set("".join(lines[:HEIGHT]))
    assert "other" in lines[-1]


def test_what_was_not_answered_is_not_drawn() -> None:
    assert terminal([told(10, None, None), told(20, 1.0, 2.0)]) == []


def test_a_png_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    several = [told(10, 1.0, 2.0), told(12, 1.0, 3.0, "other"), told(30, 2.0, 9.0, load="20/s")]
    png(several, "half through v2", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
