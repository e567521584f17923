"""What a request costs a front and what it costs the owner: how many times one front's requests two of them answer.

Two fronts answer as many times more than one as a front's CPU exceeds the owner's, up to twice: given the cores, which
this machine need not have. Claim: at least 1.6 times where reading is what costs, so the owner takes at most 0.625 of a
front; small charged requests are shown beside it, and gRPC beside a bare grpc.aio echo (`--grpc-engine native` where
that is installed).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import psutil
import uvloop
from common import HOST, BenchmarkFailed, Server, Tidemill, echo_grpc, free_port, kit_models, leave_on_sigterm, tidemill
from grpc_front import INFER, infer_request
from report import finish, flags_of
from rounds import Sample, Samples, compare, first_answer_grpc, first_answer_http

from tidemill.client import load, load_grpc
from tidemill.client.cpu import tree_cpu_s
from tidemill.client.result import Result

ROWS, COLUMNS = 64, 256
PATH, PREDICT = "/v2/models/half/infer", "/v1/models/half:predict"
VALUES = [round(0.25 * place - 1.5, 2) for place in range(16)]
SMALL = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 16], "datatype": "FP32", "data": VALUES}]}, separators=(",", ":")
).encode()
CONTENT = {"content-type": "application/json"}
OWNER_SHARE_MAX = 1 / 1.6
Drive = Callable[..., Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request to one service; `share` takes that part of the requests of a round."""

    name: str
    server: Server
    drive: Drive
    share: float = 1.0

    def parts(self) -> dict[str, tuple[int, ...]]:
        """Whose CPU is counted apart: the owner's and its fronts', or the whole of what has none."""
        root = psutil.Process(self.server.pid)
        fronts = tuple(each.pid for each in root.children() if "tidemill.front" in each.cmdline())
        if not fronts:
            return {self.name: (root.pid,)}
        return {f"{self.name}: owner": (root.pid,), f"{self.name}: fronts": fronts}


def floats() -> bytes:
    """Row form of many numbers: reading it is what costs."""
    values = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).round(4)
    return json.dumps({"instances": values.tolist()}, separators=(",", ":")).encode()


async def check(service: Tidemill) -> None:
    """The answers are right, so that no error is measured as a quick answer."""
    answer = await first_answer_http(service.url + PATH, SMALL, service.headers | CONTENT)
    data = json.loads(answer.body)["outputs"][0]["data"]
    flat = data[0] if isinstance(data[0], list) else data
    if flat != [value / 2 for value in VALUES]:
        raise BenchmarkFailed(f"half answered {flat} for {VALUES}")


def spent(pids: tuple[int, ...], fronts: tuple[int, ...]) -> float:
    """The owner's tree without its fronts, or the fronts alone."""
    own = tree_cpu_s(*pids)
    return own - tree_cpu_s(*fronts) if fronts and pids != fronts else own


async def measure_one(side: Load, requests: int, samples: dict[str, list[Sample]] | None) -> None:
    parts = side.parts()
    fronts = next((pids for name, pids in parts.items() if name.endswith("fronts")), ())
    before = {name: spent(pids, fronts) for name, pids in parts.items()}
    count = max(1, round(requests * side.share))
    result = await side.drive(requests=count)
    if result.ok != count:
        raise BenchmarkFailed(f"{side.name}: {result.ok} of {count} answered well; {dict(result.statuses)}")
    if samples is None:
        return
    total = 0.0
    for name, pids in parts.items():
        cpu_us = (spent(pids, fronts) - before[name]) / count * 1e6
        total += cpu_us
        sample = Sample(cpu_us, result.per_second, result.p50_ms, result.p99_ms)
        samples.setdefault(name, []).append(sample)
    if len(parts) > 1:
        samples.setdefault(f"{side.name}: both", []).append(Sample(total))


def http(name: str, service: Tidemill, path: str, body: bytes, in_flight: int, share: float = 1.0) -> Load:
    headers: Mapping[str, str] = service.headers | CONTENT
    return Load(name, service.server, partial(load.run, service.url + path, body, headers, in_flight=in_flight), share)


def grpc(name: str, server: Server, address: str, headers: Mapping[str, str], in_flight: int) -> Load:
    return Load(
        name, server, partial(load_grpc.run, address, INFER, infer_request(), headers, in_flight=in_flight), 0.5
    )


async def measure(flags: argparse.Namespace) -> Samples:
    many = flags.in_flight
    with ExitStack() as stack:
        models = stack.enter_context(kit_models(flags.models, "half"))
        echo_port = free_port()
        echo = stack.enter_context(echo_grpc(echo_port))
        plain = stack.enter_context(tidemill(models, ["half"]))
        one = stack.enter_context(tidemill(models, ["half"], "--fronts", "1"))
        two = stack.enter_context(tidemill(models, ["half"], "--fronts", "2"))
        for service in (plain, one, two):
            await check(service)
        body = floats()
        sides = [
            http("small, without fronts", plain, PATH, SMALL, many),
            http("small", one, PATH, SMALL, many),
            http("small, two fronts", two, PATH, SMALL, many),
            http("large, without fronts", plain, PREDICT, body, many, 0.05),
            http("large", one, PREDICT, body, many, 0.05),
            http("large, two fronts", two, PREDICT, body, many, 0.05),
            grpc("bare echo", echo, f"{HOST}:{echo_port}", {}, many),
            grpc("gRPC", one.server, one.grpc_address, one.headers, many),
        ]
        if find_spec("pygrpc_native") is not None:
            native = stack.enter_context(tidemill(models, ["half"], "--fronts", "1", "--grpc-engine", "native"))
            await first_answer_grpc(native.grpc_address, INFER, infer_request(), native.headers)
            sides.append(grpc("gRPC, native", native.server, native.grpc_address, native.headers, many))
        for side in sides:
            await measure_one(side, flags.warm, None)
        samples: dict[str, list[Sample]] = {}
        for turn in range(flags.rounds):
            start = turn % len(sides)
            for side in (*sides[start:], *sides[:start]):
                await measure_one(side, flags.requests, samples)
            print(
                f"round {turn + 1} of {flags.rounds}: "
                + ", ".join(f"{n} {s[-1].cpu_us:.1f}" for n, s in samples.items())
            )
        return samples


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=32, requests=10_000)
    samples = uvloop.run(measure(flags))
    comparisons = [
        compare(samples, "the owner's share of large JSON, charged", "large: owner", "large: fronts", OWNER_SHARE_MAX),
        compare(samples, "the owner's share of small JSON, charged", "small: owner", "small: fronts"),
        compare(samples, "small JSON over a front, both processes", "small: both", "small, without fronts"),
        compare(samples, "large JSON over a front, both processes", "large: both", "large, without fronts"),
        compare(samples, "gRPC over a front, both processes", "gRPC: both", "bare echo"),
    ]
    if "gRPC, native: both" in samples:
        comparisons += [
            compare(samples, "gRPC's native front, both processes", "gRPC, native: both", "bare echo"),
            compare(samples, "gRPC's native front alone", "gRPC, native: fronts", "bare echo"),
        ]
    return finish("fronts", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
