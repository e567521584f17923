"""The loop of a run: every side at every load, round by round; runs in the caller's process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import orjson

from tidemill.client import load, load_grpc, load_open
from tidemill.client.arrivals import poisson
from tidemill.client.bench import meter, statistics, words
from tidemill.client.bench.meter import Meter
from tidemill.client.bench.payload import Payload, speaks_grpc
from tidemill.client.bench.plan import Level, Plan, turns
from tidemill.client.bench.statistics import Sample
from tidemill.client.bench.target import Target
from tidemill.client.bench.words import Slo, Words
from tidemill.client.result import Answer, OnAnswer, Result, Retries
from tidemill.core.errors import ServerRefused

GRACE_S = 2.0
NO_SLO = Slo()
SAID_CHARS = 300
_CODES_MAX = 64
_GRPC_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

Report = Callable[[str, int, int], None]
"""(what is under way, points done, points in all)."""


@dataclass(slots=True)
class Side:
    """One server under one kind of request; `payloads` are sent in turn, and differ in their bodies alone."""

    where: Target
    payloads: Sequence[Payload]
    meter: Meter
    samples: dict[Level, list[Sample]] = field(default_factory=dict)
    slo: Slo = NO_SLO
    """Of words; a load of tensors has `slo_ms`."""
    sent: int = 0
    """Prompts that were sent so far, counted for loads of words alone."""

    @property
    def label(self) -> str:
        return self.where.label

    @property
    def speaks(self) -> bool:
        """Whether words are asked for, and streamed."""
        return self.where.door == words.DOOR

    async def drive(self, level: Level, plan: Plan, seconds: float, seed: int, on_answer: OnAnswer) -> Result:
        if not self.speaks:
            return await self._drive(self.payloads, level, plan, seconds, seed, on_answer)
        # A server that remembers prompts shall not meet again with every load those that the last began with.
        at = self.sent % len(self.payloads)
        turned = [*self.payloads[at:], *self.payloads[:at]]
        result = await self._drive(turned, level, plan, seconds, seed, on_answer)
        self.sent += result.sent
        return result

    async def _drive(
        self, payloads: Sequence[Payload], level: Level, plan: Plan, seconds: float, seed: int, on_answer: OnAnswer
    ) -> Result:
        first = payloads[0]
        bodies = [each.body for each in payloads]
        headers = {**self.where.headers, **first.headers}
        retries = Retries(attempts_max=3, answer_s_max=plan.answer_s_max)
        over_grpc = speaks_grpc(self.where.door)
        url = self.where.base if over_grpc else self.where.base + first.path
        if level.rate:
            arrivals = poisson(level.rate, seconds, seed)[: plan.requests]
            if over_grpc:
                return await load_grpc.run_open(
                    url, first.path, bodies, headers, arrivals=arrivals, in_flight_max=plan.connections,
                    grace_s=GRACE_S, on_answer=on_answer, retries=retries,
                )  # fmt: skip
            return await load_open.run(
                url, bodies, headers, arrivals=arrivals, connections=plan.connections, grace_s=GRACE_S,
                on_answer=on_answer, retries=retries, streamed=self.speaks,
            )  # fmt: skip
        if over_grpc:
            return await load_grpc.run(
                url, first.path, bodies, headers, in_flight=level.in_flight, seconds=seconds, requests=plan.requests,
                on_answer=on_answer, retries=retries,
            )  # fmt: skip
        return await load.run(
            url, bodies, headers, in_flight=level.in_flight, seconds=seconds, requests=plan.requests,
            on_answer=on_answer, retries=retries, streamed=self.speaks,
        )  # fmt: skip


async def first_answer(side: Side, answer_s_max: float = 60.0) -> Answer:
    """One answer to look at, before thousands are counted. Raises `ServerRefused`."""
    answers: list[Answer] = []
    one = Plan((), 1, answer_s_max, 1, 0.0, 1, answer_s_max)
    result = await side.drive(Level(in_flight=1), one, answer_s_max, 0, answers.append)
    where = side.where
    if not answers:
        raise ServerRefused(f"nothing listens at {where.base}: start a server there, or leave --url out")
    if not result.ok:
        answer = answers[0]
        said = answer.error or answer.body[:SAID_CHARS].decode("utf-8", "replace")
        status = code_of(where.door, answer) or "no answer"
        raise ServerRefused(f"{where.label}: {where.base} answered {status}: {said}")
    if side.speaks and (wrong := Words().take(answers[0])):
        said = answers[0].body[-SAID_CHARS:].decode("utf-8", "replace")
        raise ServerRefused(f"{where.label}: {where.base} streamed what is no whole answer ({wrong}): {said}")
    return answers[0]


async def run(sides: Sequence[Side], plan: Plan, slo_ms: float | None, report: Report) -> None:
    """Fill the samples of `sides`. Cancelled, what is there already is whole: a point is kept when it ended."""
    widest = max((level.in_flight for level in plan.levels), default=0) or 1
    for side in sides:
        if plan.warm_s:
            report(f"warming up {side.label}", 0, 0)
            await side.drive(Level(in_flight=widest), plan, plan.warm_s, 0, lambda answer: None)
    count = plan.rounds * len(plan.levels) * len(sides)
    for place, (turn, level, side) in enumerate(turns(plan, sides)):
        report(f"round {turn + 1} of {plan.rounds}", place, count)
        point = await measured(side, level, plan, slo_ms, plan.seed + turn)
        side.samples.setdefault(level, []).append(point)
    report(f"round {plan.rounds} of {plan.rounds}", count, count)


async def measured(side: Side, level: Level, plan: Plan, slo_ms: float | None, seed: int) -> Sample:
    """One side at one level in one round."""
    codes: Counter[str] = Counter()
    heard = Words(side.slo) if side.speaks else None

    def look(answer: Answer) -> None:
        if answer.status is None:
            return
        code = code_of(side.where.door, answer)
        if heard is not None and not code:
            code = heard.take(answer)
        if code:
            codes[code if code in codes or len(codes) < _CODES_MAX else "others"] += 1

    before = side.meter.before()
    result = await side.drive(level, plan, plan.seconds, seed, look)
    after = side.meter.after()
    return statistics.sample(
        result,
        codes,
        slo_ms=slo_ms,
        cpu_s=meter.cpu_s(before, after),
        rows_per_batch=meter.rows_per_batch(before, after),
        heard=heard,
    )


def code_of(door: str, answer: Answer) -> str:
    """The name of what went wrong, "" for a good answer: the body's dotted `code` where it has one, else the status."""
    if speaks_grpc(door):
        return "" if not answer.status else _GRPC_NAMES.get(answer.status, str(answer.status))
    if answer.status == 200:
        return ""
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        told = None
    code = words.code_of(told) if isinstance(told, dict) else ""
    return code or str(answer.status)
