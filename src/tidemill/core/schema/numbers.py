"""The numbers between two bounds, as the digits that they are written with; pure, in every process."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

from tidemill.core.schema.regular import NothingFits, NotRegular

DIGITS_MAX: Final = 15
DECIMALS_MAX: Final = 6
DECIMALS_MORE: Final = 2
"""So many more decimals than the bounds have may be drawn."""


def between(said: dict[str, Any], whole: bool) -> str:
    """An expression of classes alone for what `minimum`, `maximum` and the exclusive ones leave; of numbers that are
    not whole those with few decimals. Raises `NothingFits`, `NotRegular`."""
    bounds = {word: Decimal(repr(value)) for word, value in said.items()}
    wholes = _scaled(bounds, 0)
    if whole:
        if not wholes:
            raise NothingFits("leaves no whole number between its bounds")
        return f"({'|'.join(wholes)})"
    needed = max((-int(each.normalize().as_tuple().exponent) for each in bounds.values()), default=0)
    decimals = max(0, needed) + DECIMALS_MORE
    if decimals > DECIMALS_MAX + DECIMALS_MORE:
        raise NotRegular(f"has bounds of more than {DECIMALS_MAX} decimals")
    found = wholes + _scaled(bounds, decimals)
    if not found:
        raise NothingFits("leaves no number between its bounds")
    return f"({'|'.join(found)})"


def _scaled(bounds: dict[str, Decimal], decimals: int) -> list[str]:
    """The numbers with exactly so many decimals."""
    low, high = -(10**DIGITS_MAX) + 1, 10**DIGITS_MAX - 1
    for word, bound in bounds.items():
        scaled = bound.scaleb(decimals)
        if word in ("minimum", "exclusiveMinimum"):
            least = int(scaled.to_integral_value(ROUND_CEILING))
            low = max(low, least + (word == "exclusiveMinimum" and least == scaled))
        else:
            most = int(scaled.to_integral_value(ROUND_FLOOR))
            high = min(high, most - (word == "exclusiveMaximum" and most == scaled))
    found = [f"[\\u002D]{each}" for each in _positive(max(1, -high), -low, decimals)]
    return found + _positive(max(0, low), high, decimals)


def _positive(low: int, high: int, decimals: int) -> list[str]:
    found = []
    full: list[int] = []  # the widths of which every number is wanted: said at once, which grammars take better
    for width in range(decimals + 1, len(str(high)) + 1 if high >= low else 0):
        first = max(low, 0 if width == decimals + 1 else 10 ** (width - 1))
        last = min(high, 10**width - 1)
        if width > decimals + 1 and first == 10 ** (width - 1) and last == 10**width - 1:
            full.append(width)
        elif first <= last:
            found += [_pointed(each, decimals) for each in _digits(str(first).zfill(width), str(last).zfill(width))]
    if high >= low and len(str(high)) <= decimals:
        width = decimals + 1
        found = [_pointed(each, decimals) for each in _digits(str(low).zfill(width), str(high).zfill(width))]
    if full:
        point = f"[\\u002E][0-9]{{{decimals}}}" if decimals else ""
        found.append(f"[1-9][0-9]{{{full[0] - 1 - decimals},{full[-1] - 1 - decimals}}}{point}")
    return found


def _pointed(classes: list[str], decimals: int) -> str:
    at = len(classes) - decimals
    return "".join(classes[:at]) + ("[\\u002E]" + "".join(classes[at:]) if decimals else "")


def _digits(first: str, last: str) -> list[list[str]]:
    """Texts of as many digits from `first` to `last`, a class for each digit."""
    if not first:
        return [[]]
    rest = len(first) - 1
    if first[0] == last[0]:
        return [[f"[{first[0]}]", *each] for each in _digits(first[1:], last[1:])]
    low, high = int(first[0]), int(last[0])
    found = []
    if first[1:].strip("0"):
        found += [[f"[{low}]", *each] for each in _digits(first[1:], "9" * rest)]
        low += 1
    tail = []
    if last[1:].strip("9"):
        tail = [[f"[{high}]", *each] for each in _digits("0" * rest, last[1:])]
        high -= 1
    if low <= high:
        found.append([f"[{low}-{high}]", *["[0-9]"] * rest])
    return found + tail
