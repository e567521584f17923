"""What is counted of one served model: plain numbers, written by its lane, read by `/metrics` and the admin API."""

from __future__ import annotations

from tidemill.observe.histogram import POWERS_OF_TWO, Histogram


class ModelStats:
    """Written on the service's loop alone. Times in seconds.

    `latency` runs from a request's arrival in the lane to its answer, `queue` from arrival to the start of its batch,
    `compute` is the time of one batch in the engine.
    """

    __slots__ = ("batch_rows", "compute", "failures", "latency", "queue", "requests", "rows")

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self.failures: dict[str, int] = {}
        self.latency = Histogram()
        self.queue = Histogram()
        self.compute = Histogram()
        self.batch_rows = Histogram(POWERS_OF_TWO)

    def failed(self, code: str) -> None:
        self.failures[code] = self.failures.get(code, 0) + 1
