"""Part `speed` of `llm.py`: tokens a second and the time to the first, of waves of prompts that are sent at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from llm_sides import Prompts, Side, Wave
from llm_told import Claim, Found, Row

from tidemill.client.result import percentile

IN_FLIGHT = {1: 4, 8: 2, 32: 1}
"""Requests in flight -> waves in one round, so that short ones are measured as long as they need."""
OF_BARE_MIN = 0.95
OF_LLAMA_MIN = {1: 1.0, 8: 2.2, 32: 4.5}
FIRST_OF_LLAMA_MAX = 0.1
MIB = 2**20


@dataclass(slots=True)
class Taken:
    """What one side gave at one load: tokens a second and the median first token of each round, and every first."""

    per_s: list[float] = field(default_factory=list)
    first_p50_s: list[float] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)

    def take(self, waves: Sequence[Wave]) -> None:
        self.per_s.append(statistics.harmonic_mean([each.tokens_per_s for each in waves]))
        firsts = [first for each in waves for first in each.first_s]
        if firsts:
            self.first_p50_s.append(statistics.median(firsts))
            self.firsts_s += firsts


async def speed(
    bare: Side,
    ours: Side,
    whole: Side,
    llama: Mapping[int, Side],
    prompts: Callable[[int], Prompts],
    rounds: int,
    new: int,
) -> Found:
    """`whole` is `ours`, which does not stream. `llama` has a server for each number in flight, or nothing where there
    is none. `prompts` makes so many, each unlike all before."""
    taken: dict[tuple[str, int], Taken] = {}
    for turn in range(-1, rounds):  # one to warm up, which is not kept
        for count, waves in IN_FLIGHT.items():
            sides = [bare, ours, whole, *([llama[count]] if llama else [])]
            place = (turn + 1) % len(sides)
            for side in (*sides[place:], *sides[:place]):
                asked = [prompts(count) for _ in range(waves if turn >= 0 else 1)]
                given = [await side.wave(each, new if turn >= 0 else 8) for each in asked]
                if turn >= 0:
                    taken.setdefault((side.name, count), Taken()).take(given)
        if turn >= 0:
            told = [f"{name} at {count}: {each.per_s[-1]:.1f}" for (name, count), each in taken.items()]
            print(f"round {turn + 1} of {rounds}, tokens/s: " + ", ".join(told), flush=True)
    peer = next(iter(llama.values()), None)
    resident = {
        each.name: each.resident_bytes() for each in (bare, ours, whole, *([llama[max(IN_FLIGHT)]] if llama else []))
    }
    rows = [_row(name, count, each, resident[name]) for (name, count), each in taken.items()]
    return Found(_claims(taken, bare.name, ours.name, whole.name, peer.name if peer else None), rows)


def _claims(taken: Mapping[tuple[str, int], Taken], bare: str, ours: str, whole: str, llama: str | None) -> list[Claim]:
    def ratios(count: int, baseline: str, subject: str = ours) -> list[float]:
        pairs = zip(taken[subject, count].per_s, taken[baseline, count].per_s, strict=True)
        return [mine / theirs for mine, theirs in pairs]

    claims = [
        Claim(
            f"tokens/s through HTTP, {how}, {count} in flight, of {bare}",
            ratios(count, bare, subject),
            OF_BARE_MIN,
            least=True,
        )
        for how, subject in (("whole answers", whole), ("streamed", ours))
        for count in IN_FLIGHT
    ]
    if llama is None:
        return claims
    claims += [
        Claim(f"tokens/s, {count} in flight, of {llama}", ratios(count, llama), OF_LLAMA_MIN[count], least=True)
        for count in IN_FLIGHT
    ]
    most = max(IN_FLIGHT)
    pairs = zip(taken[ours, most].first_p50_s, taken[llama, most].first_p50_s, strict=True)
    firsts = [mine / theirs for mine, theirs in pairs]
    claims.append(Claim(f"p50 of the first token, {most} in flight, of {llama}", firsts, FIRST_OF_LLAMA_MAX))
    return claims


def _row(name: str, count: int, each: Taken, resident: int) -> Row:
    ordered = sorted(each.firsts_s)
    return {
        "server": name,
        "in flight": str(count),
        "tokens/s": statistics.median(each.per_s),
        "first token p50 ms": percentile(ordered, 50) * 1e3 if ordered else "",
        "first token p99 ms": percentile(ordered, 99) * 1e3 if ordered else "",
        "resident MiB": resident / MIB if count == max(IN_FLIGHT) else "",
    }
