"""The windows in which a long text is scored."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import WrongValue
from tidemill.engine.generate.windows import Window, perplexity, windows


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(st.integers(2, 60))
    return draw(st.integers(2, 300)), size, draw(st.integers(1, size - 1))


@given(layouts())
def test_each_token_but_the_first_is_scored_once(layout: tuple[int, int, int]) -> None:
    tokens, size, stride = layout
    scored = [each for window in windows(tokens, size, stride) for each in range(window.scored, window.end)]
    assert scored == list(range(1, tokens))


@given(layouts())
def test_each_window_fits_and_has_its_share_of_what_stands_before(layout: tuple[int, int, int]) -> None:
    tokens, size, stride = layout
    first, *others = windows(tokens, size, stride)
    assert first == Window(0, 1, min(size, tokens))
    for each in others:
        assert each.end - each.begin <= size
        assert each.scored - each.begin == size - stride
        assert each.begin % stride == 0


def test_a_text_of_one_token_has_no_window() -> None:
    assert list(windows(1, 4, 2)) == []


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (0, 1), (4, 0), (4, 4), (4, 5), (4, -1)])
def test_windows_that_cannot_be_laid_out_are_refused(size: int, stride: int) -> None:
    with pytest.raises(WrongValue):
        list(windows(10, size, stride))


def test_perplexity_of_a_guess_among_so_many_is_so_many() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e6) == math.inf
