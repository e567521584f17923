"""How many activations share a scale: what divides all products, and what a model may say of it."""

from __future__ import annotations

import pytest

from tidemill.engine import activations


@pytest.mark.parametrize(
    ("widths", "share"), [({576, 1536}, 192), ({4096, 11008}, 128), ({96}, 96), ({64, 192}, 64), ({7, 64}, 0)]
)
def test_as_many_activations_share_a_scale_as_divide_all_products(widths: set[int], share: int) -> None:
    assert activations.sharing(widths) == share


@pytest.mark.parametrize(
    ("value", "found"),
    [("192", "192"), ("0", "0"), ("", None), ("-1", None), ("1e3", None), ("99999", None), ("१", None)],
)
def test_nonsense_in_a_models_metadata_is_passed_over(value: str, found: str | None) -> None:
    assert activations.told(value) == found
