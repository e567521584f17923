"""Numbers as they are read."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.console import format as form


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.001, "<0.01"), (0.04, "0.04"), (9.994, "9.99"),
     (9.996, "10.0"), (99.96, "100"), (12345.6, "12,346")],
)  # fmt: skip
def test_rate(value: float | None, text: str) -> None:
    assert form.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3163737, "3.2 MB"), (999_960_000, "1.0 GB"),
     (84e6, "84.0 MB"), (5e12, "5.0 TB")],
)  # fmt: skip
def test_size(value: int, text: str) -> None:
    assert form.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.00085, "850 µs"), (0.0009999, "1.0 ms"), (0.0071, "7.1 ms"), (0.12, "120 ms"), (2.5, "2.50 s")],
)
def test_latency(value: float | None, text: str) -> None:
    assert form.latency(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1, "0 s"), (42.9, "42 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (3 * 86400 + 4 * 3600, "3 d 4 h")],
)
def test_age(value: float, text: str) -> None:
    assert form.age(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (120_000_000, "0.12"),
        (1_000_001, "0.001000001"),
        (1_234 * 10**9, "1,234.00"),
        (-5 * 10**8, "-0.50"),
    ],
)
def test_money(value: int, text: str) -> None:
    assert form.money(value) == text


@given(st.integers(-(10**20), 10**20))
def test_money_loses_nothing(nanos: int) -> None:
    assert Decimal(form.money(nanos).replace(",", "")) * 10**9 == nanos


def test_shape() -> None:
    assert form.shape((-1, 2048)) == "[any, 2048]"
    assert form.shape(()) == "[]"
    assert form.shape(None) == "any shape"


@given(st.floats(0, 10**6))
def test_no_figure_is_long(value: float) -> None:
    assert len(form.rate(value)) <= 9
    assert len(form.latency(value)) <= 14
