"""What is counted of one served model: plain numbers, written by its lane, read by `/metrics`, the admin API and V2's
statistics."""

from __future__ import annotations

from tidemill.core.running import BatchCounts, Counts, Timed
from tidemill.observe.histogram import EACH_SECONDS, FIRST_SECONDS, POWERS_OF_TWO, SPENT_SECONDS, TOKENS, Histogram

SIZES_MAX = 1024
"""Sizes of batches that are counted apart, the first ones met; a caller's own large batches may have any size."""


class RunTimes:
    """Seconds that runs of one size took: to join the inputs, in the engine, to part the outputs."""

    __slots__ = ("count", "infer_s", "input_s", "output_s")

    def __init__(self) -> None:
        self.count = 0
        self.input_s = 0.0
        self.infer_s = 0.0
        self.output_s = 0.0

    def add(self, count: int, input_s: float, infer_s: float, output_s: float) -> None:
        self.count += count
        self.input_s += input_s
        self.infer_s += infer_s
        self.output_s += output_s


class WordStats:
    """What is counted of requests for words or embeddings besides. `spent_s` runs from a request's arrival to its end,
    by the code of the error that it ended with, "" where it was answered; `first_s` from there to its first word;
    `each_s` is a request's mean time for each further token of it. `prompt` and `completion` are tokens of one request.
    """

    __slots__ = ("completion", "each_s", "first_s", "prompt", "spent_s")

    def __init__(self) -> None:
        self.first_s = Histogram(FIRST_SECONDS)
        self.each_s = Histogram(EACH_SECONDS)
        self.spent_s: dict[str, Histogram] = {}
        self.prompt = Histogram(TOKENS)
        self.completion = Histogram(TOKENS)

    def ended(self, code: str, seconds: float) -> None:
        self.spent_s.setdefault(code, Histogram(SPENT_SECONDS)).observe(seconds)


class ModelStats:
    """Written on the service's loop alone. Times in seconds.

    `latency` runs from a request's arrival in the lane to its answer, `queue` from arrival to the start of its batch,
    `compute` is the time of one batch in the engine. `queued_s` and `shared` are of requests that were answered, once
    each: what they waited before their first run, and the whole times of the run that they shared or of those of their
    parts. `by_rows` counts the runs themselves. `failed_s` is what requests that failed spent in the lane; `last_at`
    when the last one that ran arrived, on the lane's clock. `words` are those of requests for words and embeddings, by
    their operation in OpenTelemetry's words and the alias under which the model was asked ("": its own name), and
    `cached_tokens` the tokens of their prompts that needed no work.
    """

    __slots__ = (
        "batch_rows",
        "by_rows",
        "cached_tokens",
        "compute",
        "failed_s",
        "failures",
        "last_at",
        "latency",
        "queue",
        "queued_s",
        "requests",
        "rows",
        "runs",
        "shared",
        "words",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self.failures: dict[str, int] = {}
        self.failed_s = 0.0
        self.latency = Histogram()
        self.queue = Histogram()
        self.queued_s = 0.0
        self.compute = Histogram()
        self.batch_rows = Histogram(POWERS_OF_TWO)
        self.runs = 0
        self.shared = RunTimes()
        self.by_rows: dict[int, RunTimes] = {}
        self.last_at: float | None = None
        self.words: dict[tuple[str, str], WordStats] = {}
        self.cached_tokens = 0

    def failed(self, code: str) -> None:
        self.failures[code] = self.failures.get(code, 0) + 1

    def words_of(self, operation: str, alias: str) -> WordStats:
        """Those of `operation` under that name, begun where there are none yet."""
        found = self.words.get((operation, alias))
        if found is None:
            found = self.words[operation, alias] = WordStats()
        return found

    def ran(self, rows: int, input_s: float, infer_s: float, output_s: float) -> None:
        """Count a run of the engine that answered `rows` rows together."""
        self.runs += 1
        times = self.by_rows.get(rows)
        if times is None:
            if len(self.by_rows) >= SIZES_MAX:
                return
            times = self.by_rows[rows] = RunTimes()
        times.add(1, input_s, infer_s, output_s)

    def answered(self, latency_s: float, queued_s: float) -> None:
        """Count a request, whose runs are in `shared`."""
        self.requests += 1
        self.queued_s += queued_s
        self.latency.observe(latency_s)

    def counts(self, now: float, now_ms: float) -> Counts:
        """A snapshot. `now` is on the lane's clock, `now_ms` the same moment in milliseconds since 1970."""
        shared = self.shared
        return Counts(
            last_ms=0 if self.last_at is None else int(now_ms - (now - self.last_at) * 1000),
            rows=self.rows,
            runs=self.runs,
            success=_timed(self.requests, self.latency.total),
            failed=_timed(sum(self.failures.values()), self.failed_s),
            queued=_timed(shared.count, self.queued_s),
            input=_timed(shared.count, shared.input_s),
            infer=_timed(shared.count, shared.infer_s),
            output=_timed(shared.count, shared.output_s),
            batches=tuple(
                BatchCounts(
                    rows,
                    _timed(times.count, times.input_s),
                    _timed(times.count, times.infer_s),
                    _timed(times.count, times.output_s),
                )
                for rows, times in sorted(self.by_rows.items())
            ),
        )


def _timed(count: int, seconds: float) -> Timed:
    return Timed(count, int(seconds * 1e9))
