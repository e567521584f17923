"""What a request costs on top of a bare echo of the same bytes: V2 JSON, `half`, FP32 [1,16].

Claims: at most 3.0 times the CPU with key, charge and metrics; at most 2.6 times without key and charge.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack

import uvloop
from common import HOST, BenchmarkFailed, Tidemill, echo_http, free_port, kit_models, leave_on_sigterm, tidemill
from report import finish, flags_of
from rounds import Samples, compare, first_answer_http, http_side, interleave

PATH = "/v2/models/half/infer"
VALUES = [round(0.25 * place - 1.5, 2) for place in range(16)]
BODY = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 16], "datatype": "FP32", "data": VALUES}]}, separators=(",", ":")
).encode()
CONTENT = {"content-type": "application/json"}
ECHO, FULL, OPEN = "echo", "key, charge, metrics", "no key, no charge"


async def check(service: Tidemill) -> None:
    """The answers are right, so that no error is measured as a quick answer."""
    answer = await first_answer_http(service.url + PATH, BODY, service.headers | CONTENT)
    data = json.loads(answer.body)["outputs"][0]["data"]
    flat = data[0] if isinstance(data[0], list) else data
    if flat != [value / 2 for value in VALUES]:
        raise BenchmarkFailed(f"half answered {flat} for {VALUES}")


async def measure(flags: argparse.Namespace) -> Samples:
    with ExitStack() as stack:
        models = stack.enter_context(kit_models(flags.models, "half"))
        port = free_port()
        echo = stack.enter_context(echo_http(port))
        full = stack.enter_context(tidemill(models, ["half"]))
        plain = stack.enter_context(tidemill(models, ["half"], "--no-auth", "--no-charge", key=False))
        for service in (full, plain):
            await check(service)
        sides = [
            http_side(
                ECHO, echo, f"http://{HOST}:{port}{PATH}", BODY, full.headers | CONTENT, in_flight=flags.in_flight
            ),
            http_side(FULL, full.server, full.url + PATH, BODY, full.headers | CONTENT, in_flight=flags.in_flight),
            http_side(OPEN, plain.server, plain.url + PATH, BODY, CONTENT, in_flight=flags.in_flight),
        ]
        return await interleave(sides, flags.rounds, flags.requests, flags.warm)


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=32, requests=20_000)
    samples = uvloop.run(measure(flags))
    comparisons = [
        compare(samples, "V2 JSON with key, charge and metrics over a bare echo", FULL, ECHO, 3.0),
        compare(samples, "V2 JSON without key and charge over a bare echo", OPEN, ECHO, 2.6),
    ]
    return finish("front", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
