"""What a model answered, as what it is: classes, lines of text, notes, stretches, a forecast, a vector, tensors. Pure.

Told apart by the shapes that the kit's steps give; what has none of them is JSON. Runs in the console's process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

Box: TypeAlias = tuple[tuple[float, float], ...]
"""Corners (x, y) in pixels of the picture."""

ROWS_MAX = 500
"""More are not shown one by one; the raw answer holds them all."""
FIRST_VALUES = 12
OUTPUTS_MAX = 32


@dataclass(frozen=True, slots=True)
class Classes:
    """Label and score, best first."""

    rows: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Text, score, and where it stands in the picture."""

    rows: list[tuple[str, float, Box]]


@dataclass(frozen=True, slots=True)
class Notes:
    """(midi, name, start_s, end_s, strength)."""

    rows: list[tuple[int, str, float, float, float]]


@dataclass(frozen=True, slots=True)
class Stretches:
    """(start_s, end_s, score)."""

    rows: list[tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Forecast:
    """(when, value)."""

    rows: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Vector:
    size: int
    norm: float
    first: list[float]


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor: the least and the greatest of its numbers, None where it holds none."""

    name: str
    shape: tuple[int, ...]
    first: list[Any]
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    rows: list[Output] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Nothing:
    """An empty list: the model found nothing."""


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class Other:
    """JSON that is none of the above."""


Answer: TypeAlias = Classes | Lines | Notes | Stretches | Forecast | Vector | Outputs | Nothing | Words | Other


def read(body: bytes) -> Answer:
    """`body` as `:predict` words it; `Other` for whatever it is else."""
    try:
        whole = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return Other()
    if not isinstance(whole, dict):
        return Other()
    if "outputs" in whole:
        return _outputs(whole["outputs"])
    told = whole.get("predictions")
    if isinstance(told, str):
        return Words(told)
    if not isinstance(told, list):
        return Other()
    if not told:
        return Nothing()
    if _numbers(told):
        return _vector(told)
    if all(isinstance(each, dict) for each in told):
        return _records(told)
    return _outputs(told)


def _records(rows: list[dict[str, Any]]) -> Answer:
    """By the fields that every row has."""
    shown, names = rows[:ROWS_MAX], set.intersection(*(set(row) for row in rows))
    try:
        if {"label", "score"} <= names:
            return Classes([(str(row["label"]), _finite(row["score"])) for row in shown])
        if {"text", "score"} <= names:
            return Lines([(str(row["text"]), _finite(row["score"]), _box(row.get("box"))) for row in shown])
        if {"midi", "note", "start_s", "end_s"} <= names:
            return Notes(
                [
                    (int(row["midi"]), str(row["note"]), *_span(row), _finite(row.get("strength", 1.0)))
                    for row in shown
                ]
            )  # fmt: skip
        if {"start_s", "end_s"} <= names:
            return Stretches([(*_span(row), _finite(row.get("score", 1.0))) for row in shown])
        if {"step", "value"} <= names:
            return Forecast([(str(row.get("index", row["step"])), _finite(row["value"])) for row in shown])
    except (TypeError, ValueError):
        pass
    return Other()


def _span(row: dict[str, Any]) -> tuple[float, float]:
    return _finite(row["start_s"]), _finite(row["end_s"])


def _box(value: Any) -> Box:
    return tuple((_finite(x), _finite(y)) for x, y in value or ())


def _finite(value: Any) -> float:
    """Raises `ValueError` for what could not be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def _vector(values: list[float]) -> Vector:
    return Vector(len(values), math.sqrt(math.fsum(each * each for each in values)), values[:FIRST_VALUES])


def _outputs(told: Any) -> Outputs:
    named = told if isinstance(told, dict) else {"": told}
    return Outputs([_output(name, value) for name, value in list(named.items())[:OUTPUTS_MAX]])


def _output(name: str, value: Any) -> Output:
    shape: list[int] = []
    flat = [value]
    while flat and all(isinstance(each, list) and len(each) == len(flat[0]) for each in flat):
        shape.append(len(flat[0]))
        flat = [each for row in flat for each in row]
    first = flat[:FIRST_VALUES]
    if not flat or not _numbers(flat):
        return Output(name, tuple(shape), first)
    return Output(name, tuple(shape), first, min(flat), max(flat))
