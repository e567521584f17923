"""Which loads a run drives, in which order, and how long that takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tidemill.core.errors import InvalidSetting

LEVELS_MAX = 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Level:
    """One load: so many in flight (closed loop), or so many arrivals a second (open loop)."""

    in_flight: int = 0
    rate: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.rate:g}/s" if self.rate else f"{self.in_flight} in flight"


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` and `requests` bound one side at one level in one round; whichever is reached first ends it."""

    levels: tuple[Level, ...]
    rounds: int
    seconds: float
    requests: int
    warm_s: float
    connections: int
    answer_s_max: float
    seed: int = 0

    def seconds_in_all(self, sides: int) -> float:
        """About how long it takes, without the waits for the last answers."""
        return sides * (self.warm_s + self.rounds * len(self.levels) * self.seconds)


def levels(in_flight_max: int, rates: Sequence[float]) -> tuple[Level, ...]:
    """1, 2, 4, ... and `in_flight_max` itself in flight (none for 0), then the rates, ascending.

    Raises `InvalidSetting`.
    """
    found = []
    step = 1
    while step < in_flight_max:
        found.append(Level(in_flight=step))
        step *= 2
    if in_flight_max > 0:
        found.append(Level(in_flight=in_flight_max))
    for rate in sorted(set(rates)):
        if not 0 < rate < float("inf"):
            raise InvalidSetting(f"a rate of {rate}: must be more than 0 a second")
        found.append(Level(rate=rate))
    if not found:
        raise InvalidSetting("no load is asked for: give --in-flight-max or --rate")
    if len(found) > LEVELS_MAX:
        raise InvalidSetting(f"{len(found)} loads are asked for, at most {LEVELS_MAX} in one run")
    return tuple(found)


def turns(plan: Plan, sides: Sequence[T]) -> Iterator[tuple[int, Level, T]]:
    """(round, level, side): each round visits every level, each level every side, one right after the other; each visit
    begins with another side than the last, so that no side has the better place."""
    visit = 0
    for turn in range(plan.rounds):
        for level in plan.levels:
            start = visit % len(sides)
            visit += 1
            for side in (*sides[start:], *sides[:start]):
                yield turn, level, side
