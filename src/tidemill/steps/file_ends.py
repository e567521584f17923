"""The step that magika wants: the two ends of any file as tokens; pure, on the steps' threads.

The facts are those of the model's `config.min.json`: 1024 bytes of each end, taken from blocks of 4096 bytes after
white space at the outer edge is stripped, filled up with the token 256.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from msgspec import Meta

from tidemill.core.errors import WrongValue
from tidemill.core.tensor import Array
from tidemill.steps.step import Name, Step, Values, raw

BLOCK_BYTES: Final = 4096
EDGE_TOKENS: Final = 1024
PADDING: Final = 256
CONTENT_BYTES_MIN: Final = 8
"""With less content than this the model's answer means nothing."""


class FileEnds(Step, frozen=True, kw_only=True):
    """The first and the last bytes of anything, as `bytes` INT32 [1, 2 * edge]; `padding` where there are fewer."""

    accepts: ClassVar[tuple[str, ...]] = ("*/*",)
    block: Annotated[int, Meta(ge=1, le=2**20, description="bytes of each end that are looked at")] = BLOCK_BYTES
    edge: Annotated[int, Meta(ge=1, le=2**16, description="of these, without white space at the edge")] = EDGE_TOKENS
    padding: Annotated[int, Meta(ge=-1, le=65_535)] = PADDING
    output: Name = "bytes"

    def apply(self, values: Values) -> Values:
        data = raw(values)
        tokens = ends(data[: self.block], data[-self.block :], self.edge, self.padding)
        return {self.output: tokens[np.newaxis]}


def ends(head: bytes, tail: bytes, edge: int = EDGE_TOKENS, padding: int = PADDING) -> Array:
    """int32 [2 * edge] of a file's first and last block. Raises `WrongValue` for too little content."""
    begin = head.lstrip()[:edge]
    end = tail.rstrip()[-edge:]
    if len(begin) < CONTENT_BYTES_MIN:
        raise WrongValue(f"{len(begin)} bytes of content are too few to tell a type; give at least {CONTENT_BYTES_MIN}")
    tokens = np.full(2 * edge, padding, dtype=np.int32)
    tokens[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
    tokens[2 * edge - len(end) :] = np.frombuffer(end, dtype=np.uint8)
    return tokens
