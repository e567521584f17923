"""One budget, shared by what it costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.compress.prune.allocation import Curve, allocate
from tidemill.core.errors import InvalidRecipe

SHARES = (0.0, 0.3, 0.6, 0.9)
curves = st.lists(
    st.tuples(st.floats(1, 1e4), st.lists(st.floats(0, 10), min_size=3, max_size=3)), min_size=1, max_size=6
).map(lambda given: {str(at): Curve(size, SHARES, [0.0, *sorted(errors)]) for at, (size, errors) in enumerate(given)})


@given(curves, st.floats(0, 0.9))
def test_the_budget_is_met_and_no_share_leaves_its_curve(given: dict[str, Curve], share: float) -> None:
    found = allocate(given, share)
    whole = sum(curve.size for curve in given.values())
    assert sum(found[name] * curve.size for name, curve in given.items()) == pytest.approx(
        share * whole, abs=1e-6 * whole
    )
    assert all(-1e-9 <= each <= 0.9 + 1e-9 for each in found.values())


def test_the_layer_that_costs_less_gives_more() -> None:
    cheap = Curve(10, SHARES, (0, 0.1, 0.2, 0.3))
    dear = Curve(10, SHARES, (0, 1, 2, 3))
    found = allocate({"dear": dear, "cheap": cheap}, 0.45)
    assert found["cheap"] == pytest.approx(0.9)
    assert found["dear"] == pytest.approx(0.0)


def test_more_than_all_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match=r"0\.9"):
        allocate({"a": Curve(1, SHARES, (0, 1, 2, 3))}, 0.95)
