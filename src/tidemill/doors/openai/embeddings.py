"""`/v1/embeddings`: texts or tokens into work, and vectors into numbers or base64. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core.errors import EngineFailed, NotOffered
from tidemill.core.generation import Embed
from tidemill.core.request import Work
from tidemill.doors.openai import inputs
from tidemill.doors.openai.asked import About, Teller, Whole
from tidemill.doors.openai.bounds import INPUTS_MAX
from tidemill.doors.openai.common import harmless
from tidemill.doors.openai.fields import Fields

DIMENSIONS_MAX = 2**16


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`asked.Asked` of embeddings; they are not streamed."""

    works: Sequence[Work]
    encoded: bool
    stream: bool = False
    shaped_by: str = ""

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        vectors = np.ascontiguousarray(told[0].tensors["embedding"], np.float32)
        if not np.isfinite(vectors).all():
            raise EngineFailed(f"model {about.served.name!r} answered with vectors that are not finite")
        used = told[0].usage.prompt_tokens
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _base64(each) if self.encoded else each}
                for index, each in enumerate(vectors)
            ],
            "model": about.model,
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }

    def teller(self, about: About) -> Teller:
        raise NotOffered("embeddings are not streamed", param="stream")


def read(fields: Fields) -> Embeddings:
    """Raises the errors of `Fields`, each with its `param`."""
    given = inputs.read(fields, "input", INPUTS_MAX, 0)
    for index, each in enumerate(given):
        if not each:
            name = f"input[{index}]" if isinstance(fields.take("input"), list) else "input"
            raise fields.wrong(name, "is empty")
    encoded = fields.word("encoding_format", ("float", "base64"), "float") == "base64"
    dimensions = fields.whole("dimensions", 1, DIMENSIONS_MAX) or 0
    harmless(fields)
    fields.end()
    texts = tuple(each for each in given if isinstance(each, str))
    tokens = tuple(each for each in given if not isinstance(each, str))
    return Embeddings((Embed(texts, tokens, dimensions),), encoded)


def _base64(vector: Any) -> str:
    """Four bytes each, least significant first."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
