"""A small true admin API: it counts the requests that it is told of, and answers as the service does."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class FakeModel:
    """One version; `step` makes it answer `rate_s` requests a second."""

    name: str
    version: int = 1
    state: str = "AVAILABLE"
    reason: str = ""
    engine: str = "onnx"
    format: str = "onnx"
    source: str = ""
    size_bytes: int = 3_163_737
    batched: bool = True
    max_batch: int = 64
    inputs: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}]
    )
    outputs: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": "target_label", "datatype": "FP32", "shape": [-1, 214]}]
    )
    price_nanos: int = 1_000_000
    prompt_token_nanos: int = 0
    completion_token_nanos: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rate_s: float = 0.0
    latency_s: float = 0.007
    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    rows: int = 0

    def answer(self, requests: int, rows_each_batch: int = 3) -> None:
        """Count `requests` answered."""
        self.requests += requests
        if self.batched:
            self.rows += requests
            self.batches += -(-requests // rows_each_batch)

    def body(self) -> dict[str, Any]:
        served = self.requests > 0
        noise = random.Random(self.requests).uniform(0.8, 1.3)  # noqa: S311
        p50 = self.latency_s * noise if served else None
        return {
            "name": self.name, "version": self.version, "state": self.state, "reason": self.reason,
            "engine": self.engine, "format": self.format, "source": self.source, "size_bytes": self.size_bytes,
            "batched": self.batched, "max_batch": self.max_batch, "inputs": self.inputs, "outputs": self.outputs,
            "price_nanos": self.price_nanos, "prompt_token_nanos": self.prompt_token_nanos,
            "completion_token_nanos": self.completion_token_nanos,
            "cached_token_nanos": self.prompt_token_nanos, "requests": self.requests, "failures": self.failures,
            "waiting": int(self.rate_s / 50), "batches": self.batches, "rows": self.rows,
            "queue_s_sum": 0.0008 * self.requests,
            "compute_s_sum": 0.006 * self.requests,
            "latency_s": {"p50": p50, "p90": p50 and p50 * 1.6, "p99": p50 and p50 * 2.9},
        }  # fmt: skip


class FakeAdmin:
    """`models` and the flags may be changed at any time; `asked` counts the overviews given."""

    def __init__(self, models: list[FakeModel] | None = None, key: str = "") -> None:
        self.models = [FakeModel("magika", source="magika==1.0.3")] if models is None else models
        self.key = key
        self.ready, self.draining, self.charging = True, False, True
        self.reasons: list[str] = []
        self.started_at = time.time()
        self.asked = 0
        self.on_overview: Callable[[], None] = lambda: None
        self.broken: Response | None = None
        self.broken_usage: Response | None = None
        self.lineages: list[dict[str, Any]] = []
        self.reports: dict[str, str] = {}
        self.jobs: list[dict[str, Any]] = []
        self.index: list[dict[str, Any]] | None = None
        self.app = Starlette(
            routes=[
                Route("/admin/v1/overview", self.overview),
                Route("/admin/v1/usage", self.usage),
                Route("/admin/v1/lineage", self.lineage),
                Route("/admin/v1/batches", self.batches),
                Route("/admin/v1/models", self.known),
                Route("/admin/v1/lineage/{name}/{version:int}/report.html", self.report),
            ]
        )

    def restart(self) -> None:
        """Every counter begins again at zero."""
        self.started_at += 1
        for model in self.models:
            model.requests = model.batches = model.rows = 0
            model.failures = {}

    async def overview(self, request: Request) -> Response:
        if refused := self._refusal(request):
            return refused
        self.asked += 1
        self.on_overview()
        if self.broken:
            return self.broken
        calls = sum(model.requests for model in self.models)
        service = {
            "version": "0.1.0", "started_at": self.started_at, "uptime_s": time.time() - self.started_at + 8054,
            "ready": self.ready, "draining": self.draining, "reasons": self.reasons,
            "http_url": "http://127.0.0.1:8000", "grpc_address": "127.0.0.1:8001", "auth": bool(self.key),
            "charging": self.charging, "in_flight": 3, "connections": 5, "cpu_s": 1.5, "rss_bytes": 312_345_678,
        }  # fmt: skip
        usage = {"calls": calls, "nanos": sum(model.requests * model.price_nanos for model in self.models)}
        return JSONResponse({"service": service, "models": [model.body() for model in self.models], "usage": usage})

    async def usage(self, request: Request) -> Response:
        if refused := self._refusal(request):
            return refused
        if self.broken_usage:
            return self.broken_usage
        rows = [
            {"tenant": "anonymous", "key": "none", "model": model.name, "version": model.version,
             "calls": model.requests, "nanos": model.requests * model.price_nanos,
             "prompt_tokens": model.prompt_tokens, "completion_tokens": model.completion_tokens}
            for model in self.models if model.requests
        ]  # fmt: skip
        return JSONResponse({"rows": rows})

    async def lineage(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse({"models": self.lineages})

    async def batches(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse({"batches": self.jobs})

    async def known(self, request: Request) -> Response:
        """None stands for a service of an earlier version."""
        if refused := self._refusal(request):
            return refused
        if self.index is None:
            return problem("request.route", "there is nothing at /admin/v1/models", 404)
        return JSONResponse({"models": self.index})

    async def report(self, request: Request) -> Response:
        if refused := self._refusal(request):
            return refused
        body = self.reports.get(request.path_params["name"])
        if body is None:
            return problem("model.unknown", "there is no such report", 404)
        return Response(body, media_type="text/html")

    def _refusal(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if not self.key or given == f"Bearer {self.key}":
            return None
        code, message = ("key.invalid", "this key is not known") if given else ("key.missing", "no key was given")
        return problem(code, message, 401)


def problem(code: str, message: str, status: int) -> Response:
    """An error in the service's shape."""
    return JSONResponse({"error": message, "code": code}, status)


def compressed(name: str = "minilm-int8", **changes: Any) -> dict[str, Any]:
    """One model as `GET /admin/v1/lineage` tells it."""

    def measured(mean: float, low: float, high: float) -> dict[str, float]:
        return {"mean": mean, "low": low, "high": high}

    return {
        "name": name, "version": 1, "methods": ["int8"], "size_bytes": 23_012_345, "report": True, "outcome": "",
        "of": {"name": "minilm", "version": 1, "sha256": "ab" * 32, "size_bytes": 90_872_531, "source": ""},
        "loss": {
            "metric": "cosine", "before": measured(1, 1, 1), "after": measured(0.9982, 0.9979, 0.9985),
            "difference": measured(-0.0018, -0.0021, -0.0015), "kept": 0.9982, "keep": 0.99,
        },
        "speed": [
            {"shape": "1 × 16", "engine": "onnxruntime", "ratio": 0.55},
            {"shape": "8 × 128", "engine": "openvino", "ratio": 0.21},
        ],
        "created_at": 1_790_000_000.0, "recipe": {}, "seed": 0, **changes,
    }  # fmt: skip


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(admin: FakeAdmin, port: int = 0) -> Iterator[str]:
    """`admin` on a port of this machine, on a thread of its own; gives its URL."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(admin.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
