"""Interleaved rounds of several sides, so that what the machine does meanwhile hits all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from common import BenchmarkFailed, Server

from tidemill.client import load, load_grpc
from tidemill.client.result import Result


@dataclass(frozen=True, slots=True)
class Sample:
    """One side in one round: CPU of the server's process tree; wall-clock figures where a load was driven."""

    cpu_us: float
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One thing that is measured. `measure` does a number of requests and says what one cost."""

    name: str
    measure: Callable[[int], Awaitable[Sample]]


Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`subject` over `baseline`, round by round; or, where `unit` is not "", microseconds of `subject`, less those of
    `baseline` where it names one."""

    claim: str
    subject: str
    baseline: str
    limit: float | None
    ratios: tuple[float, ...]
    unit: str = ""

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def holds(self) -> bool:
        return self.limit is None or self.ratio <= self.limit


def compare(samples: Samples, claim: str, subject: str, baseline: str, limit: float | None = None) -> Comparison:
    pairs = zip(samples[subject], samples[baseline], strict=True)
    return Comparison(claim, subject, baseline, limit, tuple(mine.cpu_us / theirs.cpu_us for mine, theirs in pairs))


def microseconds(samples: Samples, claim: str, subject: str, less: str = "", limit: float | None = None) -> Comparison:
    """What `subject` costs by itself, less what `less` costs."""
    mine = samples[subject]
    costs = tuple(each.cpu_us - (samples[less][turn].cpu_us if less else 0.0) for turn, each in enumerate(mine))
    return Comparison(claim, subject, less, limit, costs, "µs")


def cheapest(samples: Samples, names: Sequence[str]) -> str:
    """The side with the lowest median of CPU time."""
    return min(names, key=lambda name: statistics.median(sample.cpu_us for sample in samples[name]))


async def interleave(sides: Sequence[Side], rounds: int, requests: int, warm: int) -> Samples:
    """Each round measures every side once, and begins with another one. `warm` requests go first and are not kept."""
    for side in sides:
        await side.measure(warm)
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for turn in range(rounds):
        start = turn % len(sides)
        for side in (*sides[start:], *sides[:start]):
            samples[side.name].append(await side.measure(requests))
        print(f"round {turn + 1} of {rounds}: " + ", ".join(f"{n} {s[-1].cpu_us:.1f}" for n, s in samples.items()))
    return samples


def http_side(name: str, server: Server, url: str, body: bytes, headers: Mapping[str, str], *, in_flight: int) -> Side:
    return Side(name, partial(_driven, server, partial(load.run, url, body, headers, in_flight=in_flight)))


def grpc_side(
    name: str,
    server: Server,
    address: str,
    call: tuple[str, bytes],
    metadata: Mapping[str, str],
    *,
    in_flight: int,
) -> Side:
    """`call` is the method's path and the serialised message."""
    drive = partial(load_grpc.run, address, *call, metadata, in_flight=in_flight)
    return Side(name, partial(_driven, server, drive))


async def _driven(server: Server, drive: Callable[..., Awaitable[Result]], requests: int) -> Sample:
    before = server.cpu_s()
    result = await drive(requests=requests)
    spent_s = server.cpu_s() - before
    if result.ok != requests:
        raise BenchmarkFailed(
            f"{server.name}: {result.ok} of {requests} answered well; statuses {dict(result.statuses)},"
            f" errors {dict(result.errors)}\n{server.log_tail()}"
        )
    return Sample(spent_s / requests * 1e6, result.per_second, result.p50_ms, result.p99_ms)


async def first_answer_http(url: str, body: bytes, headers: Mapping[str, str]) -> load.Answer:
    """One answer to look at, before thousands of it are counted."""
    answers: list[load.Answer] = []
    await load.run(url, body, headers, in_flight=1, requests=1, on_answer=answers.append)
    return _good(answers, 200, url)


async def first_answer_grpc(address: str, method: str, message: bytes, metadata: Mapping[str, str]) -> load.Answer:
    answers: list[load.Answer] = []
    await load_grpc.run(address, method, message, metadata, in_flight=1, requests=1, on_answer=answers.append)
    return _good(answers, 0, method)


def _good(answers: list[load.Answer], ok: int, where: str) -> load.Answer:
    if not answers:
        raise BenchmarkFailed(f"{where}: no connection")
    answer = answers[0]
    if answer.status != ok:
        raise BenchmarkFailed(f"{where}: status {answer.status} {answer.error} {answer.body[:500]!r}")
    return answer
