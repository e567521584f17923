"""Further names of models, as the setting `aliases` has them; pure, used in every process."""

from __future__ import annotations

import re
from collections.abc import Mapping

FORM = "expected NAME=MODEL with commas between them, such as gpt-4o=llama,gpt-4=llama"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}"
"""What can stand in an address, as a model's name does."""
_PAIR = re.compile(rf" *({_NAME}) *= *({_NAME}) *")


def aliases_of(text: str) -> dict[str, str]:
    """Alias -> the model's own name. Raises `ValueError`."""
    found: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        read = _PAIR.fullmatch(pair)
        if read is None:
            raise ValueError(f"{text!r}: {pair!r} is no alias; {FORM}")
        alias, model = read.groups()
        if alias in found:
            raise ValueError(f"{text!r}: {alias!r} stands for {found[alias]!r} and for {model!r}")
        found[alias] = model
    for alias, model in found.items():
        if model in found:
            raise ValueError(f"{text!r}: {alias!r} stands for {model!r}, which is an alias; name the model itself")
    return found


def names_for(model: str, aliases: Mapping[str, str]) -> list[str]:
    """The further names of `model`, sorted."""
    return sorted(alias for alias, own in aliases.items() if own == model)
