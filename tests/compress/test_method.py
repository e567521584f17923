"""Options of methods: read from words or values, refused with what is allowed."""

from __future__ import annotations

import pytest

from tidemill.compress.method import Method, Option
from tidemill.core.errors import InvalidRecipe

METHOD = Method(
    "some",
    "",
    {
        "bits": Option(int, 4, "bits", 2, 8),
        "share": Option(float, 0.5, "a share", 0.0, 1.0),
        "fast": Option(bool, False, "fast or not"),
        "per": Option(str, "row", "what", choices=("row", "tensor")),
    },
)


def test_what_is_not_given_has_its_default() -> None:
    assert METHOD.settle({}) == {"bits": 4, "share": 0.5, "fast": False, "per": "row"}


def test_words_of_a_command_line_are_read() -> None:
    given = {"bits": "8", "share": "0.25", "fast": "yes", "per": "tensor"}
    assert METHOD.settle(given) == {"bits": 8, "share": 0.25, "fast": True, "per": "tensor"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bits": 9}, "at most 8"),
        ({"bits": "1"}, "at least 2"),
        ({"bits": 2.5}, "whole number"),
        ({"bits": True}, "whole number"),
        ({"bits": None}, "whole number"),
        ({"bits": float("inf")}, "whole number"),
        ({"share": float("nan")}, "at least 0"),
        ({"share": "much"}, "must be a number"),
        ({"fast": 3}, "true or false"),
        ({"per": "colum"}, "one of row, tensor"),
        ({"per": 1}, "must be a word"),
        ({"bit": 4}, "no option 'bit'; its options are bits, share, fast, per"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(given: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        METHOD.settle(given)
