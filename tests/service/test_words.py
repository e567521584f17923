"""A service whose model speaks, as a tree of processes: what happens to one of them happens to no stranger."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from serving import Server, eventually, over
from tidemill.kit.fetch import cache_dir
from tidemill.kit.install import install

pytestmark = pytest.mark.slow


BACK_S_MAX = 60.0
"""On a machine that is busy with tests; how long it takes is measured in benchmarks/llm.py."""


def _generating(server: Server) -> psutil.Process:
    below = psutil.Process(server.process.pid).children(recursive=True)
    return next(each for each in below if " ".join(each.cmdline()).count("tidemill.engine.generate"))


def test_a_child_that_is_killed_under_load_fails_its_answers_is_counted_and_comes_back(tmp_path: Path) -> None:
    """Some are answered, some are cut off: `/metrics` and the charges tell as many of each as the callers saw."""
    models = cache_dir() / "models-of-tests"
    install(["smollm2"], models)
    asked = {"model": "smollm2", "prompt": "The tide", "ignore_eos": True, "temperature": 0}
    with Server(models, tmp_path, "smollm2", "--no-auth") as server:

        def ask(tokens: int) -> httpx.Response:
            return server.client.post("/v1/completions", json=asked | {"max_tokens": tokens}, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            short = [ask(4) for _ in range(3)]
            long = [pool.submit(ask, 2000) for _ in range(8)]
            eventually(lambda: _metric(server, "tidemill_generating") == 8, "eight are drawn", 30.0)
            _generating(server).kill()
            cut = [each.result() for each in long]
        began = time.monotonic()
        while (again := ask(4)).status_code == 503:
            assert time.monotonic() - began < BACK_S_MAX
            assert int(again.headers["retry-after"]) >= 1
            time.sleep(0.05)
        assert [each.status_code for each in (*short, again)] == [200] * 4
        assert {(each.status_code, each.json()["error"]["code"]) for each in cut} == {(500, "engine.failed")}
        assert "has ended" in cut[0].json()["error"]["message"]
        assert _metric(server, "tidemill_requests_total") == 4
        assert _metric(server, "tidemill_generate_restarts_total") == 1
        assert _metric(server, 'tidemill_failures_total{code="engine.failed"') == 8
        assert server.metrics()["tidemill_charges_total"] == 4
        assert _metric(server, "tidemill_generating") == 0


def _metric(server: Server, name: str) -> float:
    """The sum of what is called so, whatever its other labels."""
    return sum(value for each, value in server.metrics().items() if each.startswith(name))


def test_an_owner_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    """In the middle of an answer: neither what generates nor what checks constraints outlives it."""
    models = cache_dir() / "models-of-tests"
    install(["smollm2"], models)
    asked = {"model": "smollm2", "prompt": "The tide", "max_tokens": 2000, "stream": True, "ignore_eos": True}
    with Server(models, tmp_path, "smollm2", "--no-auth") as server:
        with server.client.stream("POST", "/v1/completions", json=asked, timeout=60) as answer:
            next(answer.iter_lines())
            below = psutil.Process(server.process.pid).children(recursive=True)
            assert any("tidemill.engine.generate" in " ".join(each.cmdline()) for each in below)
            server.process.kill()
            eventually(lambda: all(map(over, below)), "all have ended", 20.0)
        server.ended()
