"""Parts `prefix` and `beside` of `llm.py`: what a repeated beginning spares, and what others of one service wait."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import orjson
from common import HERE, BenchmarkFailed, Tidemill
from llm_sides import OpenAIServer, Prompts
from llm_told import Claim, Found, Row

from tidemill.client import load_open
from tidemill.client.bench import words

PREFIX_TOKENS, TAIL_TOKENS = 512, 16
PREFIXES = 4
"""In one round."""
SOONER_MIN = 4.0

GENERATING = 32
ASKED_PER_S = 100
P99_MAX = 3.0
BESIDE = "/v2/models/half/infer"
STOP_S_MAX = 15.0


async def prefix(ours: OpenAIServer, prompts: Callable[[int, int], Prompts], rounds: int) -> Found:
    """`prompts` makes so many of so many tokens."""
    ratios: list[float] = []
    colds: list[float] = []
    warms: list[float] = []
    for turn in range(-1, rounds):
        cold, warm = [], []
        for beginning in prompts(PREFIXES, PREFIX_TOKENS):
            one, other = prompts(2, TAIL_TOKENS)
            cold += (await ours.wave([[*beginning, *one]], 2)).first_s
            warm += (await ours.wave([[*beginning, *other]], 2)).first_s
        if turn >= 0:
            ratios.append(statistics.median(cold) / statistics.median(warm))
            colds += cold
            warms += warm
    rows: list[Row] = [
        {"first token of a prompt": f"{PREFIX_TOKENS + TAIL_TOKENS} tokens", "p50 ms": statistics.median(colds) * 1e3},
        {"first token of a prompt": "the first 512 of them repeated", "p50 ms": statistics.median(warms) * 1e3},
    ]
    return Found([Claim("a repeated 512-token prefix: how many times sooner", ratios, SOONER_MIN, least=True)], rows)


async def beside(
    service: Tidemill, ours: OpenAIServer, prompts: Callable[[int], Prompts], rounds: int, new: int, seconds: float
) -> Found:
    """A small model of the same service, asked at even times, while nothing and while much is generated."""
    ratios: list[float] = []
    figures: dict[str, list[tuple[float, float]]] = {"nothing else": [], f"{GENERATING} generate": []}
    for turn in range(rounds):
        idle = await _asked(service, seconds)
        bodies = [ours.body(each, new) for each in prompts(GENERATING * 6)]
        with _generating(ours, bodies) as popen:
            busy = await _asked(service, seconds)
            if popen.poll() is not None:
                raise BenchmarkFailed(f"the load beside ended with {popen.returncode}")
        ratios.append(busy[1] / idle[1])
        for kept, each in zip(figures.values(), (idle, busy), strict=True):
            kept.append(each)
        print(
            f"round {turn + 1} of {rounds}, p99 ms: idle {idle[1]:.2f}, beside {GENERATING} {busy[1]:.2f}", flush=True
        )
    rows: list[Row] = [
        {
            "an identity request beside": name,
            "p50 ms": statistics.median(p50 for p50, _ in kept),
            "p99 ms": statistics.median(p99 for _, p99 in kept),
        }
        for name, kept in figures.items()
    ]
    return Found([Claim(f"p99 of an identity request while {GENERATING} generate, of idle", ratios, P99_MAX)], rows)


async def _asked(service: Tidemill, seconds: float) -> tuple[float, float]:
    """p50 and p99 in ms."""
    tensor = {"name": "input", "shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}
    body = json.dumps({"inputs": [tensor]}).encode()
    headers = service.headers | {"content-type": "application/json"}
    arrivals = [place / ASKED_PER_S for place in range(round(ASKED_PER_S * seconds))]
    result = await load_open.run(service.url + BESIDE, body, headers, arrivals=arrivals, connections=8)
    if result.ok != len(arrivals):
        raise BenchmarkFailed(f"{result.ok} of {len(arrivals)} were answered: {dict(result.statuses)}, {result.errors}")
    return result.p50_ms, result.p99_ms


@contextmanager
def _generating(ours: OpenAIServer, bodies: list[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """`llm_load.py` at work, every place taken."""
    told = {"url": ours.url + words.PATH, "headers": ours.headers, "in_flight": GENERATING}
    told["bodies"] = [each.decode() for each in bodies]
    popen = subprocess.Popen([sys.executable, str(HERE / "llm_load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with popen:
        assert popen.stdin
        assert popen.stdout
        try:
            popen.stdin.write(orjson.dumps(told) + b"\n")
            popen.stdin.flush()
            if not popen.stdout.readline():
                raise BenchmarkFailed("the load beside did not begin")
            yield popen
        finally:
            popen.terminate()
            popen.wait(STOP_S_MAX)
