"""Numbers as an operator reads them; pure, runs in the console's process. A missing value is a dash."""

from __future__ import annotations

from tidemill.core import text
from tidemill.core.price import Tariff

NOTHING = "–"
NANOS = 1_000_000_000


def count(value: int) -> str:
    """1234567 -> 1,234,567."""
    return f"{value:,}"


def rate(value: float | None) -> str:
    """Three digits, and never "0" for what is not zero: 0.04, 1.25, 12.5, 1,250."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def size(value_bytes: int) -> str:
    return text.size(value_bytes)


def latency(value_s: float | None) -> str:
    return NOTHING if value_s is None else text.duration(value_s)


def age(value_s: float) -> str:
    """The two greatest units: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = max(0, int(value_s))
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {seconds} s"
    return f"{seconds} s"


def money(nanos: int) -> str:
    """Units with every digit that counts, two at least: 120000000 -> 0.12, 1000001 -> 0.001000001."""
    sign = "-" if nanos < 0 else ""
    units, fraction = divmod(abs(nanos), NANOS)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units:,}.{digits}"


def price(tariff: Tariff) -> str:
    """For a narrow place: the price of a call, and whether tokens cost something besides."""
    if not tariff.by_token:
        return money(tariff.call_nanos)
    return f"{money(tariff.call_nanos)} + tokens" if tariff.call_nanos else "by the token"


def shape(dimensions: tuple[int, ...] | None) -> str:
    """[any, 2048]; a free rank is "any shape"."""
    if dimensions is None:
        return "any shape"
    return "[" + ", ".join("any" if size == -1 else str(size) for size in dimensions) + "]"
