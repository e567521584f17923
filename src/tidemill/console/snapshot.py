"""What the admin API answers, as types; parsed here once and trusted behind. Runs in the console's process.

Fields that a newer service adds are ignored, and those that it may lack have a default.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from tidemill.core.generation import Speaks
from tidemill.core.price import Tariff
from tidemill.core.tensor import TensorSpec

ModelKey: TypeAlias = tuple[str, int]
"""(name, version)."""


class Service(msgspec.Struct, frozen=True):
    """`started_at` is Unix time; a change of it means that every counter began again at zero."""

    version: str
    started_at: float
    uptime_s: float
    ready: bool
    draining: bool = False
    reasons: tuple[str, ...] = ()
    http_url: str = ""
    grpc_address: str = ""
    auth: bool = False
    charging: bool = True
    in_flight: int = 0
    connections: int = 0
    cpu_s: float = 0.0
    rss_bytes: int = 0


class Latency(msgspec.Struct, frozen=True):
    """Quantiles of the time from request to reply; None before the first one."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Model(msgspec.Struct, frozen=True):
    """One version. `reason` tells why it is not AVAILABLE, `singly` why it is not `batched`; `failures` counts by error
    code."""

    name: str
    version: int
    state: str
    reason: str = ""
    engine: str = ""
    format: str = ""
    source: str = ""
    size_bytes: int = 0
    batched: bool = False
    max_batch: int = 0
    singly: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    accepts: tuple[str, ...] = ()
    speaks: Speaks | None = None
    price_nanos: int = 0
    prompt_token_nanos: int = 0
    completion_token_nanos: int = 0
    cached_token_nanos: int = 0
    requests: int = 0
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    waiting: int = 0
    batches: int = 0
    rows: int = 0
    queue_s_sum: float = 0.0
    compute_s_sum: float = 0.0
    latency_s: Latency = Latency()

    @property
    def key(self) -> ModelKey:
        return self.name, self.version

    @property
    def tariff(self) -> Tariff:
        return Tariff(self.price_nanos, self.prompt_token_nanos, self.completion_token_nanos, self.cached_token_nanos)

    @property
    def p50_s(self) -> float | None:
        """None before the first request; a service may say 0 then."""
        return self.latency_s.p50 if self.requests else None

    @property
    def p99_s(self) -> float | None:
        """As `p50_s`."""
        return self.latency_s.p99 if self.requests else None

    @property
    def failed(self) -> int:
        """Failures of every code."""
        return sum(self.failures.values())


class Booked(msgspec.Struct, frozen=True):
    """What the ledger holds: answered calls and their price."""

    calls: int = 0
    nanos: int = 0


class Overview(msgspec.Struct, frozen=True):
    """`GET /admin/v1/overview`."""

    service: Service
    models: tuple[Model, ...] = ()
    usage: Booked = Booked()


class UsageRow(msgspec.Struct, frozen=True):
    """What one key of one tenant used of one version."""

    tenant: str
    key: str
    model: str
    version: int
    calls: int
    nanos: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class UsageTable(msgspec.Struct, frozen=True):
    """`GET /admin/v1/usage`."""

    rows: tuple[UsageRow, ...] = ()


class Job(msgspec.Struct, frozen=True):
    """A batch of OpenAI's dialect: how many of its lines there are, and what became of them."""

    id: str
    tenant: str
    endpoint: str
    status: str
    created_at: int
    total: int
    completed: int
    failed: int


class JobTable(msgspec.Struct, frozen=True):
    """`GET /admin/v1/batches`, newest first."""

    batches: tuple[Job, ...] = ()


class Measured(msgspec.Struct, frozen=True):
    """A mean over held-out rows with its 95 % interval."""

    mean: float
    low: float
    high: float


class Loss(msgspec.Struct, frozen=True):
    """What compression cost: `kept` is after's share of before."""

    metric: str
    before: Measured
    after: Measured
    difference: Measured
    kept: float
    keep: float | None = None


class Origin(msgspec.Struct, frozen=True):
    """The model that another was made from."""

    name: str
    version: int
    sha256: str = ""
    size_bytes: int = 0
    source: str = ""


class SpeedUp(msgspec.Struct, frozen=True):
    """Time after over time before at one shape, each on its best engine."""

    shape: str
    engine: str
    ratio: float


class Compressed(msgspec.Struct, frozen=True):
    """A version that compression made. `report` tells whether its report is there to be shown."""

    name: str
    version: int
    of: Origin
    loss: Loss
    size_bytes: int = 0
    methods: tuple[str, ...] = ()
    speed: tuple[SpeedUp, ...] = ()
    created_at: float = 0.0
    outcome: str = ""
    report: bool = False

    @property
    def key(self) -> ModelKey:
        return self.name, self.version

    @property
    def size_ratio(self) -> float | None:
        return self.size_bytes / self.of.size_bytes if self.of.size_bytes else None

    @property
    def best_speed(self) -> SpeedUp | None:
        return min(self.speed, key=lambda each: each.ratio, default=None)


class LineageTable(msgspec.Struct, frozen=True):
    """`GET /admin/v1/lineage`."""

    models: tuple[Compressed, ...] = ()


class IndexedVersion(msgspec.Struct, frozen=True):
    """A version that the service knows of; `state` is "" for one that is not loaded."""

    version: int
    state: str = ""
    reason: str = ""
    size_bytes: int = 0


class Indexed(msgspec.Struct, frozen=True):
    """A model that the service knows of, served or not. `unloaded` tells that somebody unloaded it."""

    name: str
    policy: str = ""
    labels: dict[str, int] = msgspec.field(default_factory=dict)
    unloaded: bool = False
    versions: tuple[IndexedVersion, ...] = ()


class Index(msgspec.Struct, frozen=True):
    """`GET /admin/v1/models`."""

    models: tuple[Indexed, ...] = ()


class ProblemBody(msgspec.Struct, frozen=True):
    """The one shape of every error."""

    error: str
    code: str = ""


def parse(kind: type[Any], body: bytes) -> Any:
    """`body` as a `kind`. Raises `msgspec.DecodeError` (`ValidationError` when it is JSON of another shape)."""
    return msgspec.json.decode(body, type=kind)
