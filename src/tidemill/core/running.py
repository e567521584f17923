"""What is in force for one served version, and what was counted of it: plain values, told in any process."""

from __future__ import annotations

import msgspec


class Running(msgspec.Struct, frozen=True):
    """How a version runs. `rows_max` is the most rows of one batch, 0 where requests run singly; `instances` how many
    batches may run at once; `waiting_max` how many requests may wait; `delay_ms_max` how long a batch may wait for
    more, for a full one or one of the `preferred` sizes."""

    backend: str
    rows_max: int
    instances: int
    waiting_max: int
    delay_ms_max: float = 0.0
    preferred: tuple[int, ...] = ()


class Timed(msgspec.Struct, frozen=True):
    """How often it happened, and how long all of them took in nanoseconds."""

    count: int = 0
    ns: int = 0


class BatchCounts(msgspec.Struct, frozen=True):
    """The runs of the engine with `rows` rows: joining the inputs, the engine itself, parting its outputs."""

    rows: int
    input: Timed
    infer: Timed
    output: Timed


class Counts(msgspec.Struct, frozen=True):
    """What happened to a version since it was loaded.

    `last_ms` is when the last request that ran arrived, in milliseconds since 1970, 0 for never. `runs` counts the
    engine's successful runs, or an ensemble's answers, all others requests. `queued`, `input`, `infer` and `output` are
    of requests that were answered, once each: of a batch that several shared each counts the whole, one that was cut
    into several batches their sum. They are none where no lane is: of ensembles, whose stages tell them, and of
    language models.
    """

    last_ms: int = 0
    rows: int = 0
    runs: int = 0
    success: Timed = Timed()
    failed: Timed = Timed()
    queued: Timed = Timed()
    input: Timed = Timed()
    infer: Timed = Timed()
    output: Timed = Timed()
    batches: tuple[BatchCounts, ...] = ()
