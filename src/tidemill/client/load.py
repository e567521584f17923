"""A closed-loop HTTP/1.1 load generator: N connections, one request in flight on each; runs in the caller's process.

A request whose connection breaks is *lost*: it is reported, never sent again, so a caller can hold what was answered
against what a server wrote down. The connection is made anew, with bounded retries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tidemill.client.connection import Bodies, HeadersOf, Load
from tidemill.client.http1 import Target, header
from tidemill.client.result import Answer, OnAnswer, Quota, Result, Retries

__all__ = ["Answer", "Bodies", "HeadersOf", "OnAnswer", "Result", "Retries", "header", "run"]


async def run(
    url: str,
    body: Bodies = b"",
    headers: Mapping[str, str] | None = None,
    *,
    in_flight: int,
    requests: int | None = None,
    seconds: float | None = None,
    method: str = "POST",
    headers_of: HeadersOf | None = None,
    on_answer: OnAnswer | None = None,
    retries: Retries | None = None,
    streamed: bool = False,
) -> Result:
    """Keep `in_flight` requests under way until `requests` were sent or `seconds` are over, whichever comes first; all
    that were sent are waited for. `streamed` notes when the first event of each answer came.

    `on_answer` is called once for each request sent, lost ones included, in the loop: it must be quick. What the
    network does never raises; it is in the result. Raises `InvalidSetting`; an error of a callback ends the run, in an
    `ExceptionGroup`. Cancelling closes every connection.
    """
    load = _Closed(
        Target(url), body, headers or {}, method=method, headers_of=headers_of, on_answer=on_answer, retries=retries,
        streamed=streamed,
    )  # fmt: skip
    load.quota = Quota(time.perf_counter, in_flight, requests, seconds)
    started = time.perf_counter()
    count = in_flight if requests is None else min(in_flight, requests)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(load.keep_connected())
    load.result.wall_s = time.perf_counter() - started
    return load.result


class _Closed(Load):
    """The next request goes out when an answer has come in."""

    quota: Quota

    @property
    def left(self) -> bool:
        return self.quota.left and not self.stopped

    def next(self) -> tuple[int, float | None] | None:
        number = self.quota.next()
        return None if number is None else (number, None)
