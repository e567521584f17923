"""What a request costs on top of a bare echo of the same bytes: V2 and TensorFlow Serving JSON, `half`, FP32 [1,16].

Claims, for each dialect: at most 3.0 times the CPU with key, charge and metrics; at most 2.6 times without key and
charge.
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

V2, TFS = "V2", "TF Serving"
PATHS = {V2: "/v2/models/half/infer", TFS: "/v1/models/half:predict"}
VALUES = [round(0.25 * place - 1.5, 2) for place in range(16)]
ASKED = {
    V2: {"inputs": [{"name": "input", "shape": [1, 16], "datatype": "FP32", "data": VALUES}]},
    TFS: {"instances": [VALUES]},
}
BODIES = {dialect: json.dumps(asked, separators=(",", ":")).encode() for dialect, asked in ASKED.items()}
CONTENT = {"content-type": "application/json"}
ECHO, FULL, OPEN = "echo", "key, charge, metrics", "no key, no charge"


async def check(service: Tidemill) -> None:
    """The answers are right, so that no error is measured as a quick answer."""
    for dialect, path in PATHS.items():
        answer = await first_answer_http(service.url + path, BODIES[dialect], service.headers | CONTENT)
        told = json.loads(answer.body)
        data = told["outputs"][0]["data"] if dialect == V2 else told["predictions"]
        flat = data[0] if isinstance(data[0], list) else data
        if flat != [value / 2 for value in VALUES]:
            raise BenchmarkFailed(f"half answered {flat} for {VALUES} in {dialect}'s JSON")


async def measure(flags: argparse.Namespace) -> Samples:
    with ExitStack() as stack:
        models = stack.enter_context(kit_models(flags.models, "half"))
        port = free_port()
        echo = stack.enter_context(echo_http(port))
        full = stack.enter_context(tidemill(models, ["half"]))
        plain = stack.enter_context(tidemill(models, ["half"], "--no-auth", "--no-charge", key=False))
        for service in (full, plain):
            await check(service)
        sides = []
        for dialect, path in PATHS.items():
            for name, server, base, headers in (
                (ECHO, echo, f"http://{HOST}:{port}", full.headers | CONTENT),
                (FULL, full.server, full.url, full.headers | CONTENT),
                (OPEN, plain.server, plain.url, CONTENT),
            ):
                title = f"{dialect} JSON, {name}"
                side = http_side(title, server, base + path, BODIES[dialect], headers, in_flight=flags.in_flight)
                sides.append(side)
        return await interleave(sides, flags.rounds, flags.requests, flags.warm)


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=32, requests=20_000)
    samples = uvloop.run(measure(flags))
    comparisons = []
    for dialect in PATHS:
        for name, words, limit in ((FULL, "with key, charge and metrics", 3.0), (OPEN, "without key and charge", 2.6)):
            title, bare = f"{dialect} JSON, {name}", f"{dialect} JSON, {ECHO}"
            comparisons.append(compare(samples, f"{dialect} JSON {words} over a bare echo", title, bare, limit))
    return finish("front", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
