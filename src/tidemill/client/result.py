"""What a load generator saw; made in the caller's process, of plain values."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import TypeAlias

from tidemill.core.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end. `status` is None when no answer came, and `error` then says why.

    `latency_s` counts from when the request was sent; in an open loop from when it was due. So does `first_s`, the time
    to the first event of a streamed answer, for loads that look for it.
    """

    number: int
    status: int | None
    latency_s: float
    head: bytes = b""
    body: bytes = b""
    error: str = ""
    first_s: float | None = None


OnAnswer: TypeAlias = Callable[[Answer], None]


@dataclass(slots=True)
class Result:
    """Counts and latencies of a run.

    Every request that was sent is in `statuses` or in `errors`, once. HTTP statuses are as on the wire; gRPC's are the
    numbers of its codes, 0 for OK. `latencies_s` holds the answered ones, in the order of their answers,
    `ok_latencies_s` those answered well. `connects_failed` counts attempts to connect, which are not requests;
    `gave_up` the connections whose retries were used up; `unsent` what was due in an open loop and never sent, because
    nothing was free to carry it; `late_s` by how much each request of an open loop was sent after it was due.
    """

    ok_status: int = 200
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    ok_latencies_s: array[float] = field(default_factory=lambda: array("d"))
    wall_s: float = 0.0
    connects: int = 0
    connects_failed: int = 0
    gave_up: int = 0
    unsent: int = 0
    late_s: array[float] = field(default_factory=lambda: array("d"))

    @property
    def answered(self) -> int:
        return len(self.latencies_s)

    @property
    def lost(self) -> int:
        """Requests that were sent and never answered; the server may have carried them out."""
        return self.errors.total()

    @property
    def ok(self) -> int:
        return self.statuses[self.ok_status]

    @property
    def per_second(self) -> float:
        return self.answered / self.wall_s if self.wall_s else 0.0

    @property
    def p50_ms(self) -> float:
        return self.percentile_ms(50)

    @property
    def p90_ms(self) -> float:
        return self.percentile_ms(90)

    @property
    def p99_ms(self) -> float:
        return self.percentile_ms(99)

    def percentile_ms(self, percent: float) -> float:
        """Nearest rank; NaN when nothing was answered."""
        return percentile(sorted(self.latencies_s), percent) * 1e3

    def take(self, answer: Answer) -> None:
        """Count one request's end."""
        if answer.status is None:
            self.errors[answer.error] += 1
        else:
            self.statuses[answer.status] += 1
            self.latencies_s.append(answer.latency_s)
            if answer.status == self.ok_status:
                self.ok_latencies_s.append(answer.latency_s)


def percentile(ordered: list[float], percent: float) -> float:
    """Nearest rank of ascending values; NaN for none."""
    if not ordered:
        return float("nan")
    return ordered[min(max(ceil(len(ordered) * percent / 100), 1), len(ordered)) - 1]


def check_open(arrivals: Sequence[float], in_flight_max: int) -> None:
    """Raises `InvalidSetting` for an open loop that means nothing."""
    if in_flight_max < 1:
        raise InvalidSetting(f"{in_flight_max} in flight at most: must be at least 1")
    if not arrivals or arrivals[0] < 0 or any(one > other for one, other in pairwise(arrivals)):
        raise InvalidSetting("arrivals are seconds from the start, ascending, and at least one")


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a connection tries to reach a server that is away: `attempts_max` times in a row, `delay_s` apart."""

    attempts_max: int = 50
    delay_s: float = 0.1
    connect_s_max: float = 5.0
    answer_s_max: float = 60.0


class Quota:
    """Hands out request numbers until `requests` are out or `seconds` are over; at least one of both is given.

    Raises `InvalidSetting`.
    """

    __slots__ = ("_clock", "_count", "_ends", "issued")

    def __init__(self, clock: Callable[[], float], in_flight: int, requests: int | None, seconds: float | None) -> None:
        if in_flight < 1:
            raise InvalidSetting(f"in_flight = {in_flight}: must be at least 1")
        if requests is None and seconds is None:
            raise InvalidSetting("neither requests nor seconds are given: a run must end")
        if requests is not None and requests < 1:
            raise InvalidSetting(f"requests = {requests}: must be at least 1")
        if seconds is not None and not seconds > 0:
            raise InvalidSetting(f"seconds = {seconds}: must be more than 0")
        self._clock = clock
        self._count = requests
        self._ends = None if seconds is None else clock() + seconds
        self.issued = 0

    @property
    def left(self) -> bool:
        if self._count is not None and self.issued >= self._count:
            return False
        return self._ends is None or self._clock() < self._ends

    def next(self) -> int | None:
        """The number of the next request, from 0; None when there is none."""
        if not self.left:
            return None
        self.issued += 1
        return self.issued - 1
