"""The one table of metric names, and `/metrics` in Prometheus' text form; runs in the owner process.

Counting happens in plain numbers (`stats.py`); they are turned into samples only when somebody scrapes.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from tidemill import __version__
from tidemill.core.generation import Busy
from tidemill.observe.histogram import Histogram
from tidemill.observe.stats import ModelStats

NAMES = {
    "tidemill_requests": "Requests answered, by model and version.",
    "tidemill_failures": "Requests refused or failed, by model (empty when unknown) and code.",
    "tidemill_rows": "Rows answered.",
    "tidemill_request_seconds": "From arrival in the lane to the answer.",
    "tidemill_queue_seconds": "From arrival in the lane to the start of the batch.",
    "tidemill_compute_seconds": "One batch in the engine.",
    "tidemill_batch_rows": "Rows of one batch.",
    "gen_ai_server_request_duration_seconds": "From arrival to the end of an answer in words or vectors.",
    "gen_ai_server_time_to_first_token_seconds": "From arrival to the first word of an answer; language models alone.",
    "gen_ai_server_time_per_output_token_seconds": "An answer's mean time for each token after the first.",
    "gen_ai_client_token_usage": "Tokens of one request that was answered, by gen_ai_token_type: input, output.",
    "tidemill_cached_tokens": "Tokens of prompts that needed no work, where the engine tells.",
    "tidemill_generating": "Answers of a language model that are drawn now.",
    "tidemill_cache_share": "Share of a language model's cache that answers use now.",
    "tidemill_generate_restarts": "Times that the process of a language model had to be started again.",
    "tidemill_waiting": "Requests that wait for the engine.",
    "tidemill_in_flight": "Requests between admission and reply.",
    "tidemill_model_ready": "1 when the version serves, else 0.",
    "tidemill_charges": "Charges made durable.",
    "tidemill_charge_groups": "Commits that made them durable.",
    "tidemill_connections": "Open HTTP connections.",
    "tidemill_model_state": "1 for the state that the version is in, as TensorFlow Serving calls it.",
    "tidemill_ready": "1 while /readyz says ready, else 0.",
    "tidemill_draining": "1 from the signal to stop on, else 0.",
    "tidemill_start_time_seconds": "Unix time at which the service started.",
    "tidemill_build_info": "1; the labels are the versions of Tidemill and of Python.",
    "tidemill_tls_expiry_timestamp_seconds": "Unix time at which the certificate in use expires; absent without TLS.",
    "tidemill_tls_renewal_failed": "1 while the certificate's files cannot be used and the old one serves on.",
    "tidemill_jobs": "Batches of OpenAI's dialect that have not ended, by state.",
    "tidemill_job_lines": "Their lines that were answered or failed since the start, by outcome.",
    "tidemill_job_lines_running": "Their lines that are being answered.",
    "tidemill_front_up": "1 when the front process listens, else 0; nothing without `fronts`.",
    "tidemill_front_restarts": "Times the front process had to be started again.",
    "tidemill_front_connections": "Open HTTP connections of the front process.",
    "tidemill_front_cpu_seconds": "CPU time of the front process that runs now.",
    "tidemill_front_resident_bytes": "Resident memory of the front process.",
    "tidemill_upstream_requests": "Requests to a server that answers for a model here, those asked again included.",
    "tidemill_upstream_failures": "Those that it did not answer, or answered as a sick server does; looks too.",
    "tidemill_upstream_up": "0 while the upstream is left alone because it failed, else 1.",
    "tidemill_process_cpu_seconds": "CPU time of the owner process.",
    "tidemill_process_resident_bytes": "Resident memory of the owner process.",
}

GEN_AI = (
    "model",
    "version",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)
"""Labels of the `gen_ai` metrics: ours, and those that OpenTelemetry's conventions for generative AI want. A name is
the model's own or one of its aliases; what callers and upstreams make up would be without end."""
PROVIDER = "tidemill"


class ModelSample:
    """One model's line-up at the moment of a scrape."""

    __slots__ = ("busy", "name", "ready", "state", "stats", "version", "waiting")

    def __init__(
        self,
        name: str,
        version: int,
        ready: bool,
        waiting: int,
        stats: ModelStats,
        state: str = "UNKNOWN",
        busy: Busy | None = None,
    ) -> None:
        """`busy` is None for all but a language model that tells."""
        self.busy = busy
        self.name = name
        self.version = version
        self.ready = ready
        self.state = state
        self.waiting = waiting
        self.stats = stats


class FrontSample(NamedTuple):
    """One front process, as it last reported."""

    name: str
    up: bool
    restarts: int
    connections: int
    cpu_s: float
    rss_bytes: int


class UpstreamSample(NamedTuple):
    """A server that answers for a model here, by its place in the model's `tidemill.toml`."""

    model: str
    version: int
    upstream: str
    requests: int
    failures: int
    up: bool


class JobsSample(NamedTuple):
    """The batches of OpenAI's dialect: how many are in each state, and what became of lines."""

    states: Mapping[str, int]
    completed: int
    failed: int
    running: int


NO_JOBS = JobsSample({}, 0, 0, 0)


class ServiceSample:
    """The service's line-up at the moment of a scrape."""

    __slots__ = (
        "charge_groups",
        "charges",
        "connections",
        "draining",
        "failures",
        "fronts",
        "in_flight",
        "jobs",
        "models",
        "ready",
        "started_at",
        "tls",
        "upstreams",
    )

    def __init__(
        self,
        models: list[ModelSample],
        failures: dict[str, int],
        in_flight: int,
        connections: int,
        charges: int,
        charge_groups: int,
        tls: tuple[float, bool] | None = None,
        ready: bool = False,
        draining: bool = False,
        started_at: float = 0.0,
        fronts: Sequence[FrontSample] = (),
        upstreams: Sequence[UpstreamSample] = (),
        jobs: JobsSample = NO_JOBS,
    ) -> None:
        """`tls`: when the certificate expires, and whether the last renewal failed."""
        self.models = models
        self.failures = failures
        self.in_flight = in_flight
        self.connections = connections
        self.charges = charges
        self.charge_groups = charge_groups
        self.tls = tls
        self.ready = ready
        self.draining = draining
        self.started_at = started_at
        self.fronts = fronts
        self.upstreams = upstreams
        self.jobs = jobs


class Exposition:
    """Renders `/metrics` from a function that takes the sample."""

    def __init__(self, sample: Callable[[], ServiceSample]) -> None:
        self._sample = sample
        self._process = psutil.Process()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        sample = self._sample()
        labels = ("model", "version")
        requests, rows = _counter("tidemill_requests", labels), _counter("tidemill_rows", labels)
        waiting, ready = _gauge("tidemill_waiting", labels), _gauge("tidemill_model_ready", labels)
        state = _gauge("tidemill_model_state", (*labels, "state"))
        failures = _counter("tidemill_failures", ("model", "code"))
        failed: Counter[tuple[str, str]] = Counter()
        latency, queue = _histogram("tidemill_request_seconds"), _histogram("tidemill_queue_seconds")
        compute, batch = _histogram("tidemill_compute_seconds"), _histogram("tidemill_batch_rows")
        for model in sample.models:
            where = (model.name, str(model.version))
            stats = model.stats
            requests.add_metric(where, stats.requests)
            rows.add_metric(where, stats.rows)
            waiting.add_metric(where, model.waiting)
            ready.add_metric(where, float(model.ready))
            state.add_metric((*where, model.state), 1)
            for code, count in stats.failures.items():
                failed[model.name, code] += count  # over all versions: two series of one name would spoil the page
            for family, histogram in (
                (latency, stats.latency),
                (queue, stats.queue),
                (compute, stats.compute),
                (batch, stats.batch_rows),
            ):
                _add(family, where, histogram)
        for code, count in sample.failures.items():
            failed["", code] += count
        for known, count in failed.items():
            failures.add_metric(known, count)
        yield from (requests, failures, rows, latency, queue, compute, batch, waiting, ready, state)
        yield _gauge("tidemill_in_flight", value=sample.in_flight)
        yield _gauge("tidemill_connections", value=sample.connections)
        yield _counter("tidemill_charges", value=sample.charges)
        yield _counter("tidemill_charge_groups", value=sample.charge_groups)
        yield _gauge("tidemill_ready", value=float(sample.ready))
        yield _gauge("tidemill_draining", value=float(sample.draining))
        yield _gauge("tidemill_start_time_seconds", value=sample.started_at)
        build = _gauge("tidemill_build_info", ("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        expiry, failed_renewal = sample.tls or (None, None)
        yield _gauge("tidemill_tls_expiry_timestamp_seconds", value=expiry)
        yield _gauge("tidemill_tls_renewal_failed", value=None if failed_renewal is None else float(failed_renewal))
        yield from _words(sample.models)
        yield from _jobs(sample.jobs)
        yield from _fronts(sample.fronts)
        yield from _upstreams(sample.upstreams)
        with self._process.oneshot():
            times = self._process.cpu_times()
            yield _counter("tidemill_process_cpu_seconds", value=times.user + times.system)
            yield _gauge("tidemill_process_resident_bytes", value=self._process.memory_info().rss)


def _words(models: Sequence[ModelSample]) -> Iterator[Metric]:
    """Those of OpenTelemetry's conventions for generative AI, with their labels beside ours, and what they lack."""
    label = ("model", "version")
    spent = _histogram("gen_ai_server_request_duration_seconds", (*GEN_AI, "error_type"))
    first = _histogram("gen_ai_server_time_to_first_token_seconds", GEN_AI)
    each = _histogram("gen_ai_server_time_per_output_token_seconds", GEN_AI)
    tokens = _histogram("gen_ai_client_token_usage", (*GEN_AI, "gen_ai_token_type"))
    cached = _counter("tidemill_cached_tokens", label)
    running, share = _gauge("tidemill_generating", label), _gauge("tidemill_cache_share", label)
    restarts = _counter("tidemill_generate_restarts", label)
    for model in models:
        where = (model.name, str(model.version))
        for (operation, alias), words in model.stats.words.items():
            told = (*where, operation, PROVIDER, alias or model.name, model.name)
            for code, histogram in words.spent_s.items():
                _add(spent, (*told, code), histogram)
            _add(tokens, (*told, "input"), words.prompt)
            if words.completion.total:
                _add(first, told, words.first_s)
                _add(each, told, words.each_s)
                _add(tokens, (*told, "output"), words.completion)
        if model.stats.words:
            cached.add_metric(where, model.stats.cached_tokens)
        if model.busy is not None:
            running.add_metric(where, model.busy.running)
            share.add_metric(where, model.busy.cache_share)
            restarts.add_metric(where, model.busy.restarts)
    yield from (spent, first, each, tokens, cached, running, share, restarts)


def _jobs(jobs: JobsSample) -> Iterator[Metric]:
    states, lines = _gauge("tidemill_jobs", ("state",)), _counter("tidemill_job_lines", ("outcome",))
    for state in ("validating", "in_progress", "finalizing", "cancelling"):
        states.add_metric((state,), jobs.states.get(state, 0))
    lines.add_metric(("completed",), jobs.completed)
    lines.add_metric(("failed",), jobs.failed)
    yield from (states, lines, _gauge("tidemill_job_lines_running", value=jobs.running))


def _fronts(fronts: Sequence[FrontSample]) -> Iterator[Metric]:
    label = ("front",)
    up, restarts = _gauge("tidemill_front_up", label), _counter("tidemill_front_restarts", label)
    connections, memory = _gauge("tidemill_front_connections", label), _gauge("tidemill_front_resident_bytes", label)
    cpu = _counter("tidemill_front_cpu_seconds", label)
    for each in fronts:
        up.add_metric((each.name,), float(each.up))
        restarts.add_metric((each.name,), each.restarts)
        connections.add_metric((each.name,), each.connections)
        cpu.add_metric((each.name,), each.cpu_s)
        memory.add_metric((each.name,), each.rss_bytes)
    yield from (up, restarts, connections, cpu, memory)


def _upstreams(upstreams: Sequence[UpstreamSample]) -> Iterator[Metric]:
    labels = ("model", "version", "upstream")
    requests, failures = (_counter(f"tidemill_upstream_{what}", labels) for what in ("requests", "failures"))
    up = _gauge("tidemill_upstream_up", labels)
    for each in upstreams:
        where = (each.model, str(each.version), each.upstream)
        requests.add_metric(where, each.requests)
        failures.add_metric(where, each.failures)
        up.add_metric(where, float(each.up))
    yield from (requests, failures, up)


def _counter(name: str, labels: Iterable[str] | None = None, value: float | None = None) -> CounterMetricFamily:
    return CounterMetricFamily(name, NAMES[name], labels=tuple(labels) if labels else None, value=value)


def _gauge(name: str, labels: Iterable[str] | None = None, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, NAMES[name], labels=tuple(labels) if labels else None, value=value)


def _histogram(name: str, labels: Sequence[str] = ("model", "version")) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, NAMES[name], labels=labels)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    family.add_metric(labels, _buckets(histogram), histogram.total)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [f"{bound:.12g}" for bound in histogram.bounds] + ["+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
