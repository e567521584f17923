"""Which of several models no other one beats in both size and loss; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def front(found: Sequence[T], point: Callable[[T], tuple[float, float]]) -> list[T]:
    """Those that are not dominated, by `point` (both numbers the less the better), in order of the first. Of equals the
    first one stays."""
    kept: list[T] = []
    least = float("inf")
    for each in sorted(found, key=point):
        if point(each)[1] < least:
            least = point(each)[1]
            kept.append(each)
    return kept
