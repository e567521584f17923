"""Part `recovery` of `llm.py`: how long a service is without a language model whose process was killed under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable

import httpx
import psutil
from common import BenchmarkFailed, Tidemill
from llm_sides import OpenAIServer, Prompts
from llm_told import Claim, Found, Row
from prometheus_client.parser import text_string_to_metric_families

from tidemill.client import load
from tidemill.client.bench import words
from tidemill.client.result import Answer, Retries
from tidemill.core.streamed import EventReader

STREAMS, STREAM_TOKENS = 8, 400
BACK_S_MAX = 10.0
WAIT_S_MAX = 60.0
LOOK_S = 0.02
CODE = "engine.failed"
GENERATING, RESTARTS = "tidemill_generating", "tidemill_generate_restarts_total"


async def recovery(
    service: Tidemill, ours: OpenAIServer, prompts: Callable[[int], Prompts], kills: int, apart_s: float
) -> Found:
    """Kill it `kills` times, with `apart_s` of quiet service in between."""
    took: list[float] = []
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=WAIT_S_MAX) as client:
        for turn in range(kills):
            before = await _counted(client)
            streams = asyncio.create_task(_streams(ours, prompts(STREAMS)))
            while (await _counted(client))[GENERATING] < STREAMS:
                await _pause(streams)
            os.kill(_child(service), signal.SIGKILL)
            began = time.monotonic()
            (question,) = prompts(1)
            asked = {"model": "smollm2", "prompt": list(question), "max_tokens": 1}
            while (answer := await client.post(words.PATH, json=asked)).status_code != 200:
                if answer.status_code not in (500, 503) or time.monotonic() - began > WAIT_S_MAX:
                    raise BenchmarkFailed(f"while it starts again: {answer.status_code} {answer.text[:300]}")
                await asyncio.sleep(LOOK_S)
            took.append(time.monotonic() - began)
            codes = await streams
            if codes != [CODE] * STREAMS:
                raise BenchmarkFailed(f"streams of the killed process ended with {codes}, not with {CODE}")
            after = await _counted(client)
            if after[RESTARTS] != before[RESTARTS] + 1:
                raise BenchmarkFailed(f"restarts: {before} before, {after} after")
            print(f"kill {turn + 1} of {kills}: serves again after {took[-1]:.2f} s", flush=True)
            await asyncio.sleep(apart_s)
    ordered = sorted(took)
    rows: list[Row] = [{"kills": str(kills), "median s": ordered[len(ordered) // 2], "longest s": ordered[-1]}]
    return Found([Claim("seconds until it answers after `kill -9`, the longest", took, BACK_S_MAX, worst=True)], rows)


async def _pause(streams: asyncio.Task[list[str]]) -> None:
    if streams.done():
        raise BenchmarkFailed(f"streams ended before anything was killed: {streams.result()}")
    await asyncio.sleep(LOOK_S)


async def _streams(ours: OpenAIServer, asked: Prompts) -> list[str]:
    """The code of the error with which each ends; "" for one that came whole."""
    ends: list[str] = []

    def take(answer: Answer) -> None:
        events = EventReader().feed(answer.body) if answer.status == 200 else [answer.body]
        told = json.loads(events[-1]) if events and events[-1].startswith(b"{") else {}
        ends.append(words.code_of(told))

    await load.run(
        ours.url + words.PATH,
        [ours.body(each, STREAM_TOKENS) for each in asked],
        ours.headers | {"content-type": "application/json"},
        in_flight=len(asked),
        requests=len(asked),
        on_answer=take,
        retries=Retries(answer_s_max=WAIT_S_MAX),
    )
    return ends


async def _counted(client: httpx.AsyncClient) -> dict[str, float]:
    answer = await client.get("/metrics")
    return {
        each.name: each.value
        for family in text_string_to_metric_families(answer.text)
        for each in family.samples
        if each.name in (GENERATING, RESTARTS) and each.labels.get("model") == "smollm2"
    }


def _child(service: Tidemill) -> int:
    """The process that generates."""
    below = psutil.Process(service.server.pid).children(recursive=True)
    (found,) = (each.pid for each in below if "tidemill.engine.generate" in each.cmdline())
    return found
