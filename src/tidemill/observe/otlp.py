"""Spans to a collector over OTLP/HTTP, by OpenTelemetry's own library; its one thread runs in the owner process.

Nothing waits for the collector: spans lie in a bounded queue, and what does not fit or cannot be sent is lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings
from tidemill.observe.trace import STATE, Attributes

log = logging.getLogger(__name__)

PATH = "/v1/traces"
SEND_EACH_MS = 1000
SEND_S_MAX = 5.0
"""One attempt to send, its retries included."""
STOP_S_MAX = 2.0
BATCH_MAX = 512
_W3C = TraceContextTextMapPropagator()


def endpoint(url: str) -> str:
    """The address to send to: a base as OTEL_EXPORTER_OTLP_ENDPOINT gives it, or the whole. Raises `InvalidSetting`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidSetting(f"--otlp-endpoint {url!r} is no address of a collector; expected http://HOST:4318")
    return url if parts.path.endswith(PATH) else url.rstrip("/") + PATH


class RequestSpan:
    """`trace.Span` over OpenTelemetry's."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        context = span.get_span_context()
        if context.trace_flags.sampled:
            _W3C.inject(carrier, set_span_in_context(span))
        self.traceparent = carrier.get("traceparent", "")

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, attributes: Attributes, failed: bool) -> None:
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Otlp:
    """`trace.Recorder`. Life: built, `close` once."""

    def __init__(self, settings: Settings, version: str) -> None:
        """Raises `InvalidSetting`."""
        address = endpoint(settings.otlp_endpoint)
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `Told` tells it once, not every second
        self._told = Told(OTLPSpanExporter(address, timeout=SEND_S_MAX), address)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "tidemill", "service.version": version}),
            sampler=ParentBased(TraceIdRatioBased(settings.otlp_sample_percent / 100)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._told,
                max_queue_size=settings.otlp_queue_max,
                schedule_delay_millis=SEND_EACH_MS,
                max_export_batch_size=min(BATCH_MAX, settings.otlp_queue_max),
            )
        )
        self._tracer = self._provider.get_tracer("tidemill", version)

    @property
    def sent(self) -> int:
        """Spans that the collector has taken."""
        return self._told.sent

    def begin(self, name: str, parent: Mapping[str, str], attributes: Attributes) -> RequestSpan:
        context = _W3C.extract(dict(parent))
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes=attributes)
        return RequestSpan(span)

    def child(self, name: str, traceparent: str, begin_ns: int, end_ns: int, attributes: Attributes) -> None:
        context = _W3C.extract({"traceparent": traceparent})
        self._tracer.start_span(name, context, attributes=attributes, start_time=begin_ns).end(end_ns)

    def close(self) -> None:
        """Send what is left, for `STOP_S_MAX` at most."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(STOP_S_MAX)


class Told(SpanExporter):
    """Says once that the collector does not take spans, and once that it does again."""

    def __init__(self, inner: SpanExporter, address: str) -> None:
        self._inner = inner
        self._address = address
        self._failing = False
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if not failed:
            self.sent += len(spans)
        if failed != self._failing:
            self._failing = failed
            if failed:
                log.warning("%s takes no spans; they are lost until it does", self._address)
            else:
                log.info("%s takes spans again", self._address)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


def set_up(settings: Settings, version: str) -> Otlp:
    """Record the requests of this process from now on. Raises `InvalidSetting`."""
    STATE.recorder = made = Otlp(settings, version)
    return made
