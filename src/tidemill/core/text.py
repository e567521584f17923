"""Values as they may stand in a message; pure."""

from __future__ import annotations


def short(value: object, characters: int = 80) -> str:
    """`value` as Python writes it, cut to `characters`: what a caller sends may be megabytes."""
    if isinstance(value, str | bytes) and len(value) > characters:
        value = value[:characters]
    text = repr(value)
    return text if len(text) <= characters + 2 else text[:characters] + "..."
