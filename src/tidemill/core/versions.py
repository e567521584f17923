"""Which versions of a model are served, and by which labels; used in every process, and loads nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec


class VersionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which versions of a model are served, in TensorFlow Serving's words (`ServableVersionPolicy`).

    `specific` names them; else all where `all_versions`; else the newest `latest`.
    """

    latest: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    all_versions: bool = False
    specific: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionPolicy:
        """`latest`, `latest:N`, `all` or `specific:1,3`. Raises `ValueError`."""
        word, colon, rest = text.partition(":")
        if word == "latest" and (not colon or (_is_number(rest) and 1 <= int(rest) <= 1000)):
            return cls(latest=int(rest) if colon else 1)
        if text == "all":
            return cls(all_versions=True)
        if word == "specific" and all(map(_is_number, rest.split(","))):
            return cls(specific=tuple(sorted({int(number) for number in rest.split(",")})))
        raise ValueError(f"{text!r}: expected latest, latest:N (1 to 1000), all, or specific:1,3")

    @property
    def text(self) -> str:
        """What `parse` reads as this."""
        if self.specific:
            return "specific:" + ",".join(map(str, self.specific))
        return "all" if self.all_versions else f"latest:{self.latest}"

    def chosen(self, there: Iterable[int]) -> list[int]:
        """The versions of `there` that are served, oldest first."""
        ordered = sorted(there)
        if self.specific:
            return [version for version in ordered if version in self.specific]
        return ordered if self.all_versions else ordered[-self.latest :]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


class Versions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[versions]` of `tidemill.toml`: the policy as `VersionPolicy.parse` reads it, and labels; None takes the
    service's."""

    policy: str | None = None
    labels: dict[str, int] = {}
