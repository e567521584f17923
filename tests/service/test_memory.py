"""Memory of a service that has answered for long: what a request takes is given back. Prints a table, which `make soak`
keeps."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from serving import Server
from tidemill.client import load

ROUNDS = 10
GROWTH_MIB_MAX = 8.0
"""Between the rounds' third and last: far below what a hundred bytes kept of each request would come to in the long
form."""
BODIES = [json.dumps({"instances": [float(number)] * (1 + 37 * number % 400)}).encode() for number in range(64)] + [
    b"{",
    b'{"instances": ["text"]}',
    b'{"instances": [[[1]], 2]}',
]


@pytest.mark.parametrize(
    "requests",
    [pytest.param(40_000, marks=pytest.mark.slow), pytest.param(1_000_000, marks=pytest.mark.soak)],
    ids=lambda count: f"{count}-requests",
)
async def test_memory_is_flat_over_many_requests(repository: Path, tmp_path: Path, requests: int) -> None:
    """Good and bad requests of many sizes, each under a name of its own, charged and counted."""
    with Server(repository, tmp_path, "half", "--no-auth") as server:
        process = psutil.Process(server.process.pid)
        resident = []
        print("requests | answered | refused | resident MiB | open files | threads")
        answered = refused = 0
        for number in range(ROUNDS):
            result = await load.run(
                f"{server.url}/v1/models/half:predict",
                BODIES,
                {"content-type": "application/json"},
                in_flight=32,
                requests=requests // ROUNDS,
                headers_of=lambda sent, number=number: {"x-request-id": f"round{number}-{sent}"},
            )
            assert (result.lost, result.statuses.keys()) == (0, {200, 400})
            answered, refused = answered + result.statuses[200], refused + result.statuses[400]
            resident.append(process.memory_info().rss / 2**20)
            print(
                f"{(number + 1) * (requests // ROUNDS):,} | {answered:,} | {refused:,} | {resident[-1]:.1f}"
                f" | {process.num_fds()} | {process.num_threads()}"
            )
        assert resident[-1] - resident[2] < GROWTH_MIB_MAX
        booked = server.metrics()['tidemill_requests_total{model="half",version="1"}']
        assert booked == answered
