"""Keeps a number of streamed answers under way until it is ended: what `llm_latency.py` measures beside; a process of
its own, so that reading them delays nobody's clock.

One line of JSON in: `url`, `headers`, `in_flight`, and `bodies`, which are sent in turn. One line out when as many
answers have ended as are kept under way. A request that is not answered well ends it with exit code 1.
"""

from __future__ import annotations

import json
import sys

import uvloop

from tidemill.client import load
from tidemill.client.bench.words import told
from tidemill.client.result import Answer, Retries

SECONDS_MAX = 600.0


async def run() -> None:
    asked = json.loads(sys.stdin.readline())
    left = asked["in_flight"]

    def take(answer: Answer) -> None:
        nonlocal left
        if isinstance(told(answer.body), str):
            sys.exit(f"an answer was {answer.status} {answer.error} {answer.body[:300]!r}")
        left -= 1
        if not left:
            print("begun", flush=True)

    await load.run(
        asked["url"],
        [each.encode() for each in asked["bodies"]],
        asked["headers"] | {"content-type": "application/json"},
        in_flight=asked["in_flight"],
        seconds=SECONDS_MAX,
        on_answer=take,
        retries=Retries(answer_s_max=SECONDS_MAX),
    )


if __name__ == "__main__":
    uvloop.run(run())
