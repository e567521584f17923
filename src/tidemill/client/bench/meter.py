"""What a server says of itself, and what its processes cost, before and after a load; runs in the caller's process."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tidemill.client.bench.target import ASK_S_MAX, Target, get_json
from tidemill.client.cpu import total_of
from tidemill.core.errors import ServerRefused

_BATCHES, _ROWS = "tidemill_batch_rows_count", "tidemill_batch_rows_sum"
_CPU = ("tidemill_process_cpu_seconds_total", "process_cpu_seconds_total")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment; None is unknown."""

    cpu_s: float | None = None
    batches: float | None = None
    rows: float | None = None


class Meter:
    """Reads one server. `cpu_from` says what the CPU time is of: `processes`, `metrics`, or "" where it is unknown."""

    def __init__(self, where: Target) -> None:
        self._where = where
        scraped = self._scraped()
        if total_of(where.pids) is not None:
            self.cpu_from = "processes"
        else:
            self.cpu_from = "metrics" if scraped.cpu_s is not None else ""
        self._scrapes = scraped != Reading()

    def before(self) -> Reading:
        """To be called right before a load: its own cost falls outside."""
        scraped = self._scraped() if self._scrapes else Reading()
        return self._with_cpu(scraped, total_of(self._where.pids))

    def after(self) -> Reading:
        """To be called right after it."""
        spent = total_of(self._where.pids)
        return self._with_cpu(self._scraped() if self._scrapes else Reading(), spent)

    def _with_cpu(self, scraped: Reading, spent: float | None) -> Reading:
        return Reading(scraped.cpu_s if self.cpu_from == "metrics" else spent, scraped.batches, scraped.rows)

    def _scraped(self) -> Reading:
        if not self._where.http_base:
            return Reading()
        try:
            answer = httpx.get(f"{self._where.http_base}/metrics", timeout=ASK_S_MAX)
        except (httpx.HTTPError, httpx.InvalidURL):
            return Reading()
        return Reading() if answer.is_error else read(answer.text, self._where.model)


def read(text: str, model: str) -> Reading:
    """What a page of metrics in Prometheus' form says of `model`; whatever it does not say is None."""
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                if each.name in _CPU or (each.name in (_BATCHES, _ROWS) and each.labels.get("model") == model):
                    found[each.name] = found.get(each.name, 0.0) + each.value
    except (ValueError, KeyError, IndexError):  # it is no such page
        return Reading()
    cpu = next((found[name] for name in _CPU if name in found), None)
    return Reading(cpu, found.get(_BATCHES), found.get(_ROWS))


def rows_per_batch(before: Reading, after: Reading) -> float | None:
    if None in (before.batches, before.rows, after.batches, after.rows):
        return None
    batches = after.batches - before.batches  # type: ignore[operator]
    return (after.rows - before.rows) / batches if batches > 0 else None  # type: ignore[operator]


def cpu_s(before: Reading, after: Reading) -> float | None:
    if before.cpu_s is None or after.cpu_s is None or after.cpu_s < before.cpu_s:
        return None
    return after.cpu_s - before.cpu_s


class Till:
    """What the service booked for the model since this was made: asked of the admin API, where it lets us."""

    def __init__(self, where: Target) -> None:
        self._where = where
        self._since_ms = int(time.time() * 1000)

    def units_per_1000(self) -> float | None:
        """Units for a thousand answered requests; None where nobody tells, and where nothing was booked."""
        if not self._where.http_base:
            return None
        url = f"{self._where.http_base}/admin/v1/usage?since_ms={self._since_ms}"
        try:
            told = get_json(url, self._where.headers)["rows"]
            mine = [each for each in told if each["model"] == self._where.model]
            calls, nanos = (sum(int(each[name]) for each in mine) for name in ("calls", "nanos"))
        except (ServerRefused, KeyError, TypeError, ValueError):
            return None
        return nanos / calls * 1000 / 1e9 if calls else None


def cost_per_1000(cpu_us: float | None, core_hour: float | None) -> float | None:
    """What a thousand requests cost in CPU time, where one core costs `core_hour` an hour."""
    return None if cpu_us is None or core_hour is None else cpu_us * 1000 / 1e6 / 3600 * core_hour
