"""What the owner and the child that generates say to each other: the headers of their frames; used at both ends.

Nothing is asked as a stream of its own: one frame after each step tells what it brought to every answer under way.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

from tidemill.core.generation import Delta, Generate, Score, Speaks, Tokenise
from tidemill.core.request import Usage
from tidemill.wire.problems import Problem


class Topic(IntEnum):
    """What a frame is about."""

    OPEN = 1
    """The owner tells the child what to load, once, first."""
    ADD = 2
    """The owner tells of a request."""
    DROP = 3
    """The owner tells the number of a request whose answer nobody wants any more."""
    READY = 10
    """The child tells that it has loaded, once."""
    REFUSED = 11
    """The child tells why it cannot load, and ends."""
    STEP = 12
    """The child tells what one step brought."""


class Opening(msgspec.Struct, frozen=True):
    """`path` is the file or folder of the model; `kv_bytes` 0 leaves the size of the cache to the child. `options` are
    those that the library beneath knows by its own names. `scores` opens one that scores texts and keeps nothing of
    what it read for the next: what comes from the cache has no score. `kept` is a folder of the owner's in which a
    child leaves what the next need not find out again; "" keeps nothing."""

    path: str
    format: str
    threads: int
    kv_bytes: int
    running_max: int
    step_tokens_max: int
    template_s_max: float
    nice: int
    options: dict[str, Any] = {}
    scores: bool = False
    kept: str = ""


class Ready(msgspec.Struct, frozen=True):
    """`kv_bytes` are those of `kv_tokens`."""

    speaks: Speaks
    kv_tokens: int
    kv_bytes: int


class Add(msgspec.Struct, frozen=True, array_like=True):
    """One of the works is given."""

    number: int
    generate: Generate | None = None
    tokenise: Tokenise | None = None
    score: Score | None = None


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a step brought to one request. The last part of one has `usage` or `problem`."""

    number: int
    deltas: tuple[Delta, ...] = ()
    tokens: tuple[int, ...] | None = None
    usage: Usage | None = None
    problem: Problem | None = None
    logprobs: tuple[float, ...] | None = None


class Gauges(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How busy the child is: answers that have a place in the batch, those that wait for one, and the share of the
    cache's blocks that are in use."""

    running: int = 0
    waiting: int = 0
    kv_share: float = 0.0


class Step(msgspec.Struct, frozen=True, array_like=True, gc=False):
    parts: tuple[Part, ...]
    gauges: Gauges = Gauges()


encode: Final = msgspec.msgpack.Encoder().encode
read_opening: Final = msgspec.msgpack.Decoder(Opening).decode
read_ready: Final = msgspec.msgpack.Decoder(Ready).decode
read_add: Final = msgspec.msgpack.Decoder(Add).decode
read_number: Final = msgspec.msgpack.Decoder(int).decode
read_text: Final = msgspec.msgpack.Decoder(str).decode
read_step: Final = msgspec.msgpack.Decoder(Step).decode
