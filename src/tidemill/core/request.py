"""The request and the pieces of its reply, as every floor above knows them; used in every process."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from tidemill.core.errors import NotOffered
from tidemill.core.generation import Delta, Embed, Generate, Score, Tokenise
from tidemill.core.tensor import Tensors

RAW = "data"
"""What a tensor of raw bytes is called, on the way in and on the way out."""


class Predict(msgspec.Struct, frozen=True, gc=False):
    """Tensors in, tensors out. `outputs` names those wanted, empty for all. `signature` is the name of one of the
    model's further signatures, "" for its own.

    `media` is the media type of what a person sent, "" for tensors. Then `inputs` holds `RAW` alone, one BYTES value,
    and so does the answer: JSON. The model's steps lie between.
    """

    inputs: Tensors
    outputs: tuple[str, ...] = ()
    media: str = ""
    signature: str = ""


Work: TypeAlias = Predict | Generate | Embed | Tokenise | Score


class InferenceRequest(msgspec.Struct, frozen=True, gc=False):
    """One question to one version of one model, validated by the door that took it.

    `deadline` is on the clock of `time.monotonic`, in seconds. `charge_id` names the charge that answering makes: the
    same id never makes a second one. `traceparent` is the request's span in W3C's form, "" where it is not traced.
    `batch` tells a line of a batch, which has a price of its own. `alias` is the other name under which the model was
    asked, one of `Fleet.aliases`; "" its own.
    """

    model: str
    version: int
    work: Work
    request_id: str
    charge_id: str
    deadline: float
    traceparent: str = ""
    batch: bool = False
    alias: str = ""

    @property
    def tensors(self) -> Predict:
        """The work of a request to a model of tensors. Raises `NotOffered` for any other."""
        if not isinstance(self.work, Predict):
            raise NotOffered(f"model {self.model!r} takes tensors; it neither generates text nor embeds it")
        return self.work


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What a reply counts for. `rows` is the size of the batch dimension, 1 for a model without one. Tokens are those
    of a language model: `cached_tokens` of the prompt's needed no work."""

    calls: int = 1
    rows: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A part of a reply: tensors, or words. The last one carries `usage`, and a door holds it back until its charge is
    durable."""

    tensors: Tensors
    usage: Usage | None = None
    deltas: tuple[Delta, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """Who asks: the tenant that pays, the key that spoke, and whether it may use the admin API."""

    tenant: str
    key: str
    admin: bool = False


ANONYMOUS = Caller(tenant="anonymous", key="none", admin=True)
