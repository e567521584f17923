"""A service whose model speaks, as a tree of processes: what happens to one of them happens to no stranger."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from serving import Server, eventually, over
from tidemill.kit.fetch import cache_dir
from tidemill.kit.install import install

pytestmark = pytest.mark.slow


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
