"""A model as it lies on disk; what compress, compile and deploy hand to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tidemill.core.tensor import Signature, TensorSpec


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[batching]` of `tidemill.toml`.

    `batched` overrules what the signature tells: true for a model of free shape whose dimension 0 is a batch.
    `max_batch` is in rows; None takes the service's default.
    """

    batched: bool | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[price]` of `tidemill.toml`; None takes the service's default."""

    call_nanos: Annotated[int, msgspec.Meta(ge=0, le=10**18)] | None = None


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tidemill.toml` beside a model. `inputs` and `outputs` declare the signature of an `echo` model only.

    `threads` and `instances` are those of the settings; None takes the service's.
    """

    engine: str | None = None
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    instances: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    batching: Batching = Batching()
    price: Price = Price()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class ModelPackage(msgspec.Struct, frozen=True):
    """One version of a model: where it lies, what its bytes are, and how it wants to run.

    `path` is the file or folder that the engine opens. `format` is one of `repository.formats.FORMATS`. `signature` is
    what the file itself declares, where an engine cannot be trusted to read it. `bounded` tells that how long the model
    takes depends on the shapes of its inputs alone, never on their values.
    """

    name: str
    version: int
    path: Path
    format: str
    size_bytes: int
    config: ModelConfig = ModelConfig()
    signature: Signature | None = None
    bounded: bool = False
    source: str = ""
