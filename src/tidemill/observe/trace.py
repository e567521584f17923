"""Traces: one span for each request, with children for its time in the queue and in the engine; off, it costs nothing.

Used where requests pass, in every process that answers some. What a span is, and where it goes, is `otlp.py`'s, which
is loaded only where an endpoint is set. A request carries its span as W3C's `traceparent`, a plain string, so that the
children may be made in another process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

HEADERS = frozenset({"traceparent", "tracestate"})
Attributes = Mapping[str, Any]


class Span(Protocol):
    """One request's. Life: made by `begin`, `end` once, by the same task."""

    traceparent: str
    """What children and those asked onwards are to name as their parent; "" when this request is not sampled."""

    def set(self, attributes: Attributes) -> None: ...

    def end(self, attributes: Attributes, failed: bool) -> None: ...


class Recorder(Protocol):
    """Where spans go."""

    def begin(self, name: str, parent: Mapping[str, str], attributes: Attributes) -> Span: ...

    def child(self, name: str, traceparent: str, begin_ns: int, end_ns: int, attributes: Attributes) -> None: ...


class _State:
    """Of this process; None is off."""

    recorder: Recorder | None = None


STATE = _State()
CURRENT: ContextVar[Span | None] = ContextVar("span", default=None)
"""The span of the request that the running task answers."""


def begin(name: str, headers: Iterable[tuple[Any, Any]], attributes: Attributes) -> Span | None:
    """The span of a request that has just come, below its caller's where `headers` name one; None when off."""
    recorder = STATE.recorder
    if recorder is None:
        return None
    parent = {}
    for key, value in headers:
        word = key if isinstance(key, str) else key.decode("latin-1")
        if word in HEADERS:
            parent[word] = value if isinstance(value, str) else value.decode("latin-1")
    span = recorder.begin(name, parent, attributes)
    CURRENT.set(span)
    return span


def parent() -> str:
    """The `traceparent` for what the running task asks for; "" when off or not sampled."""
    span = CURRENT.get() if STATE.recorder is not None else None
    return span.traceparent if span is not None else ""


def tell(attributes: Attributes) -> None:
    """Add to the running task's span, where there is one."""
    span = CURRENT.get() if STATE.recorder is not None else None
    if span is not None:
        span.set(attributes)


def ran(
    traceparent: str, arrived: float, started: float, ended: float, rows: int, batch_rows: int, batch_requests: int
) -> None:
    """The two children of a request that a lane answered. Times are on the clock of `time.monotonic`."""
    recorder = STATE.recorder
    if recorder is None:
        return
    offset = time.time_ns() - time.monotonic_ns()
    arrived_ns, started_ns, ended_ns = (offset + int(at * 1e9) for at in (arrived, started, ended))
    recorder.child("queue", traceparent, arrived_ns, started_ns, {"tidemill.rows": rows})
    batch = {"tidemill.rows": rows, "tidemill.batch.rows": batch_rows, "tidemill.batch.requests": batch_requests}
    recorder.child("compute", traceparent, started_ns, ended_ns, batch)
