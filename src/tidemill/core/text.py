"""Values as they may stand in a message, or in front of people; pure."""

from __future__ import annotations


def short(value: object, characters: int = 80) -> str:
    """`value` as Python writes it, cut to `characters`: what a caller sends may be megabytes."""
    if isinstance(value, str | bytes) and len(value) > characters:
        value = value[:characters]
    text = repr(value)
    return text if len(text) <= characters + 2 else text[:characters] + "..."


def size(value_bytes: float) -> str:
    """For people, powers of ten: 999 B, 3.2 MB, 128 MB."""
    value = float(value_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def duration(value_s: float) -> str:
    """850 µs, 7.1 ms, 120 ms, 2.50 s."""
    if value_s < 0.0009995:
        return f"{value_s * 1e6:.0f} µs"
    if value_s < 0.09995:
        return f"{value_s * 1e3:.1f} ms"
    if value_s < 0.9995:
        return f"{value_s * 1e3:.0f} ms"
    return f"{value_s:,.2f} s"
