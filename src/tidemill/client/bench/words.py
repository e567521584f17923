"""A load of words through OpenAI's door: its prompts, and what each streamed answer tells of time and tokens. Pure.

TTFT is the time to the first event of an answer, TPOT the time of each token behind the first: (latency - TTFT) /
(tokens - 1), as vLLM's benchmark has it. The server counts the tokens; a stream that does not end with `[DONE]`, or
tells an error, is none that was answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import orjson

from tidemill.client.bench.payload import Payload
from tidemill.client.result import Answer, percentile
from tidemill.core.errors import ServerRefused
from tidemill.core.streamed import DONE, EventReader

DOOR = "openai"
PATH = "/v1/completions"
VOCABULARY = range(1000, 9000)
"""Tokens that a prompt is drawn from, where the server does not tell those of a text: every common vocabulary has them
as words."""
TEXT = (
    "A tide mill is a water mill that is driven by the rise and fall of the sea. A dam with a sluice stands across an"
    " inlet; as the tide comes in, the pond behind it fills, and when the water outside is low enough, it is let out"
    " over the wheel. Millers worked by the moon, twice a day and an hour later each day, whatever the clock said."
)


class Tokens(msgspec.Struct, frozen=True):
    """What one load of words gave; times are in ms, over the answers that came whole. `goodput` is answers a second
    within both bounds."""

    prompt_tokens: float
    completion_tokens: float
    per_second: float
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    tpot_p99_ms: float | None
    goodput: float | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds that an answer keeps to be a good one; None bounds nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None

    def __bool__(self) -> bool:
        return self.ttft_ms is not None or self.tpot_ms is not None

    def keeps(self, ttft_ms: float, tpot_ms: float) -> bool:
        return (self.ttft_ms is None or ttft_ms <= self.ttft_ms) and (self.tpot_ms is None or tpot_ms <= self.tpot_ms)


def payloads(
    model: str, count: int, prompt_tokens: int, max_tokens: int, seed: int, known: Sequence[int] = ()
) -> list[Payload]:
    """`count` prompts of exactly so many tokens, drawn from `known`, each answered with exactly `max_tokens`."""
    random = np.random.default_rng(seed)
    drawn = random.choice(np.array(known or VOCABULARY), (count, prompt_tokens))
    asked = {
        "model": model,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"content-type": "application/json"}
    return [Payload(PATH, orjson.dumps({**asked, "prompt": each.tolist()}), headers) for each in drawn]


@dataclass(slots=True)
class Words:
    """Collects the answers of one load."""

    slo: Slo = Slo()
    latencies_s: list[float] = field(default_factory=list)
    _ttft_ms: list[float] = field(default_factory=list)
    _tpot_ms: list[float] = field(default_factory=list)
    _prompt: int = 0
    _completion: int = 0
    _kept: int = 0

    def take(self, answer: Answer) -> str:
        """ "" for an answer that came whole, else what is wrong with it."""
        usage = told(answer.body)
        if isinstance(usage, str):
            return usage
        if answer.first_s is None:
            return "not streamed"
        prompt, completion = usage
        ttft_ms = answer.first_s * 1e3
        tpot_ms = (answer.latency_s - answer.first_s) * 1e3 / (completion - 1) if completion > 1 else 0.0
        self.latencies_s.append(answer.latency_s)
        self._ttft_ms.append(ttft_ms)
        if completion > 1:
            self._tpot_ms.append(tpot_ms)
        self._prompt += prompt
        self._completion += completion
        self._kept += self.slo.keeps(ttft_ms, tpot_ms)
        return ""

    def tokens(self, wall_s: float) -> Tokens | None:
        """None where nothing came whole."""
        count = len(self._ttft_ms)
        if not count or not wall_s:
            return None
        return Tokens(
            self._prompt / count,
            self._completion / count,
            self._completion / wall_s,
            _at(self._ttft_ms, 50),
            _at(self._ttft_ms, 99),
            _at(self._tpot_ms, 50),
            _at(self._tpot_ms, 99),
            self._kept / wall_s if self.slo else None,
        )


def _at(values: list[float], percent: float) -> float | None:
    return percentile(sorted(values), percent) if values else None


def told(body: bytes) -> tuple[int, int] | str:
    """Tokens of prompt and answer as a streamed body tells them, or what is wrong with it."""
    try:
        events = EventReader().feed(body)
        if not events or events[-1] != DONE:
            return _error(events[-1]) if events else "no events"
        usage = orjson.loads(events[-2])["usage"]
        return int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (ServerRefused, orjson.JSONDecodeError, IndexError, KeyError, TypeError, ValueError):
        return "no usage told"


def _error(event: bytes) -> str:
    """The code of an error that ended a stream."""
    value: Any = orjson.loads(event)
    if not isinstance(value, dict) or "error" not in value:
        return "ended in the middle"
    return code_of(value) or "error in the stream"


def code_of(value: dict[str, Any]) -> str:
    """The dotted code of ours, or OpenAI's within `error`; "" for neither."""
    error = value.get("error")
    code = value.get("code") or (error.get("code") if isinstance(error, dict) else None)
    return code if isinstance(code, str) else ""
