"""Reads the fields of a JSON object, each once, with its type and its range; what is wrong names its place. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tidemill.core.errors import MissingInput, NotOffered, UnknownInput, WrongDatatype, WrongValue
from tidemill.core.text import short

_NAMES = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class Fields:
    """The fields of one object. `null` is a field that was left out. Life: read each field that is known, then `end`,
    which refuses the others.

    `lax` leaves those alone, and takes a number or a flag that came as text, or a whole number that came as `1.0`.
    Raises `WrongDatatype`, `WrongValue`, `MissingInput`, `UnknownInput`, `NotOffered`, each with its `param`.
    """

    def __init__(self, value: Any, path: str = "", lax: bool = False) -> None:
        if not isinstance(value, dict):
            raise WrongDatatype(f"{path or 'the body'} is {short(value)}, expected an object", param=path or None)
        self.values: dict[str, Any] = value
        self.path = path
        self.lax = lax
        self._known: set[str] = set()

    def place(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str) -> Any:
        """The value as it came, None where it is left out."""
        self._known.add(name)
        return self.values.get(name)

    def ignore(self, *names: str) -> None:
        """Fields that may be there and change nothing."""
        self._known.update(names)

    def refuse(self, name: str, why: str, *unless: Any) -> None:
        """Raises `NotOffered` where the field is there, and is none of `unless`."""
        value = self.take(name)
        if value is not None and value not in unless:
            raise NotOffered(f"{self.place(name)} is not offered: {why}", param=self.place(name))

    def text(self, name: str, characters_max: int) -> str | None:
        value: str | None = self._typed(name, str)
        if value is not None and len(value) > characters_max:
            raise self.wrong(name, f"has {len(value)} characters, at most {characters_max} are taken")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name)
        if self.lax and value in ("true", "false"):
            return bool(value == "true")
        value = self._typed(name, bool)
        return default if value is None else value

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self.take(name)
        if self.lax and not isinstance(value, bool):
            value = _relaxed(value)
            value = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(value, float) and not abs(value) < 2**63:  # also those that JSON's reader made of longer ones
            raise self.wrong(name, f"is {value:g}, expected a whole number from {low} to {high}")
        if value is not None and type(value) is not int:
            raise self._mistyped(name, int)
        if value is not None and not low <= value <= high:
            raise self.wrong(name, f"is {short(value)}, expected {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.take(name)
        if self.lax and not isinstance(value, bool):
            value = _relaxed(value)
        if value is None:
            return None
        if type(value) not in (int, float):
            raise self._mistyped(name, float)
        if not low <= value <= high:  # NaN is never between
            raise self.wrong(name, f"is {short(value)}, expected {low:g} to {high:g}")
        return float(value)

    def word(self, name: str, words: Sequence[str], default: str) -> str:
        value = self._typed(name, str)
        if value is not None and value not in words:
            raise self.wrong(name, f"is {short(value)}, expected one of {', '.join(words)}")
        return default if value is None else value

    def items(self, name: str, count_max: int, count_min: int = 0) -> list[Any] | None:
        value: list[Any] | None = self._typed(name, list)
        if value is not None and not count_min <= len(value) <= count_max:
            raise self.wrong(name, f"has {len(value)} entries, expected {count_min} to {count_max}")
        return value

    def record(self, name: str) -> Fields | None:
        value = self._typed(name, dict)
        return None if value is None else Fields(value, self.place(name), self.lax)

    def records(self, name: str, count_max: int, count_min: int = 0) -> Iterator[Fields]:
        """Each entry of a list of objects."""
        for index, each in enumerate(self.items(name, count_max, count_min) or ()):
            yield Fields(each, f"{self.place(name)}[{index}]", self.lax)

    def needed(self, name: str) -> None:
        """Raises `MissingInput` where the field is left out."""
        if self.take(name) is None:
            raise MissingInput(f"{self.place(name)} is missing", param=self.place(name))

    def end(self) -> None:
        if self.lax:
            return
        for name in self.values:
            if name not in self._known:
                known = ", ".join(sorted(self._known))
                raise UnknownInput(
                    f"{self.place(name)[:200]} is not known here; known are {known} (--openai-lax leaves it alone)",
                    param=self.place(name)[:200],
                )

    def wrong(self, name: str, what: str) -> WrongValue:
        return WrongValue(f"{self.place(name)} {what}", param=self.place(name))

    def _typed(self, name: str, kind: type) -> Any:
        value = self.take(name)
        if value is not None and type(value) is not kind:
            raise self._mistyped(name, kind)
        return value

    def _mistyped(self, name: str, kind: type) -> WrongDatatype:
        place = self.place(name)
        return WrongDatatype(f"{place} is {short(self.values[name])}, expected {_NAMES[kind]}", param=place)


def _relaxed(value: Any) -> Any:
    """A number that came as text."""
    if not isinstance(value, str) or len(value) > 40:
        return value
    try:
        return float(value)
    except ValueError:
        return value
