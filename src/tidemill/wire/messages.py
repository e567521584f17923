"""What a front and the owner say to each other: the headers of their frames; used at both ends of a link.

A frame's `topic` tells which. Tensors and bodies are the payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec

from tidemill.core.generation import Speaks
from tidemill.core.price import Tariff
from tidemill.core.running import Running
from tidemill.core.tensor import Signature
from tidemill.wire.tensors import TensorHead


class Topic(IntEnum):
    """What a frame is about."""

    INFER = 1
    """Asked with `Infer` and tensors, answered with `Answer` and tensors."""
    HTTP = 2
    """Asked with `HttpRequest` and a body, answered with `HttpReply` and a body."""
    GRPC = 3
    """Asked with `GrpcRequest` and a message, answered with `GrpcReply` and a message."""
    WELCOME = 10
    """The owner tells a front what it is, once, first."""
    TABLE = 11
    """The owner tells what is served, whenever that changes."""
    KEYS = 12
    """The owner tells that a key may have changed."""
    DRAIN = 13
    """The owner tells a front to finish what runs and to end."""
    READY = 20
    """A front tells that it listens, once."""
    REPORT = 21
    """A front tells what it counted since its last report."""
    RELEASE = 22
    """A front tells the serial of a model that it has no request for any more, and will have none."""


class Infer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request that a front has read and judged; `remaining_s` is the time to its deadline."""

    model: str
    version: int
    tenant: str
    key: str
    request_id: str
    charge_id: str
    remaining_s: float
    outputs: tuple[str, ...]
    media: str
    traceparent: str
    tensors: Sequence[TensorHead]
    signature: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece of an answer. `calls` is 0 in all but the final piece, which tells what the reply counts for.

    `booked` tells that nothing more is needed. Where it is False in the final piece the charge is still open: the front
    words the answer, says so with `MORE`, and sends it when `LAST` tells that it is booked.
    """

    tensors: Sequence[TensorHead]
    calls: int
    rows: int
    booked: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class HttpRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request that a front passes on whole."""

    method: str
    path: str
    query: bytes
    scheme: str
    headers: tuple[tuple[bytes, bytes], ...]
    client: tuple[str, int] | None


class HttpReply(msgspec.Struct, frozen=True, array_like=True):
    status: int
    headers: tuple[tuple[bytes, bytes], ...]


class GrpcRequest(msgspec.Struct, frozen=True, array_like=True):
    """A call that a front passes on whole; `method` is `/service/method`."""

    method: str
    metadata: tuple[tuple[str, Any], ...]
    remaining_s: float | None


class GrpcReply(msgspec.Struct, frozen=True, array_like=True):
    """`status` is gRPC's number, 0 for a call that went well."""

    status: int
    details: str
    trailing: tuple[tuple[str, Any], ...]


class Welcome(msgspec.Struct, frozen=True):
    """`settings` are those of the service, as plain values; `grpc_port` is the one to listen on, 0 for any.

    `inside` is the Unix socket at which gRPC is answered in the clear for this service's own parts, "" without TLS.
    """

    settings: dict[str, Any]
    name: str
    grpc_port: int
    inside: str


class Model(msgspec.Struct, frozen=True):
    """One version of a model, as `core.contracts.Served` tells of it.

    `serial` is another for each load of one, and 0 while it does not serve. Whoever is told of one that serves may ask
    it until he has said `RELEASE`.
    """

    serial: int
    name: str
    version: int
    signature: Signature
    labels: tuple[str, ...]
    platform: str
    accepts: tuple[str, ...]
    tariff: Tariff
    state: str
    reason: str
    running: Running
    speaks: Speaks | None = None
    embeds: bool = False


class Table(msgspec.Struct, frozen=True):
    """What is served. `ready` and `draining` are the service's; gRPC is answered at `grpc_port`, 0: nowhere yet. The
    models `parked` were unloaded by hand; `aliases` are further names of models."""

    models: tuple[Model, ...]
    labels: dict[str, dict[str, int]]
    ready: bool
    draining: bool
    grpc_port: int
    parked: frozenset[str] = frozenset()
    aliases: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True):
    """`grpc_port` is 0 for a front that speaks HTTP."""

    grpc_port: int = 0


class Failures(msgspec.Struct, frozen=True, array_like=True):
    """`count` requests were refused or failed with `code`; `model` is "" where it was not known."""

    model: str
    version: int
    code: str
    count: int


class Report(msgspec.Struct, frozen=True):
    """`failures` are those since the last report, the other values those of now."""

    connections: int
    cpu_s: float
    rss_bytes: int
    failures: tuple[Failures, ...]


encode: Final = msgspec.msgpack.Encoder().encode
read_serial: Final = msgspec.msgpack.Decoder(int).decode
read_infer: Final = msgspec.msgpack.Decoder(Infer).decode
read_answer: Final = msgspec.msgpack.Decoder(Answer).decode
read_http_request: Final = msgspec.msgpack.Decoder(HttpRequest).decode
read_http_reply: Final = msgspec.msgpack.Decoder(HttpReply).decode
read_grpc_request: Final = msgspec.msgpack.Decoder(GrpcRequest).decode
read_grpc_reply: Final = msgspec.msgpack.Decoder(GrpcReply).decode
read_welcome: Final = msgspec.msgpack.Decoder(Welcome).decode
read_table: Final = msgspec.msgpack.Decoder(Table).decode
read_ready: Final = msgspec.msgpack.Decoder(Ready).decode
read_report: Final = msgspec.msgpack.Decoder(Report).decode
