"""How much memory a language model's cache takes, and how many tokens fit; pure, used in the child.

The cache is made of blocks of `BLOCK_TOKENS` tokens. OpenVINO holds keys and values in bytes: keys with a scale and a
zero (two floats) for each channel of a block, values with a scale and a zero for each token.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tidemill.core.errors import RefusedModel

BLOCK_TOKENS: Final = 32
MEMORY_SHARE: Final = 0.25
"""Of the memory that is free when the model loads, where the operator names no size."""
FULL_ONES: Final = 4
"""One in so many answers is taken to need a full context; where more do, they wait."""
BLOCKS_MIN: Final = 4


class Shape(msgspec.Struct, frozen=True):
    """What a model's files say of it. `template` "" leaves it to the tokenizer."""

    layers: int
    kv_heads: int
    key_width: int
    value_width: int
    context_tokens: int
    template: str = ""


def block_bytes(shape: Shape) -> int:
    keys = BLOCK_TOKENS * shape.key_width + 8 * shape.key_width
    values = BLOCK_TOKENS * (shape.value_width + 8)
    return shape.layers * shape.kv_heads * (keys + values)


def kv_blocks(shape: Shape, kv_bytes: int, available_bytes: int, running_max: int) -> int:
    """Blocks of a cache of `kv_bytes`; of 0, in a share of what is free, as many as answers are taken to need. Raises
    `RefusedModel` where that is too little for any answer."""
    one = block_bytes(shape)
    if kv_bytes:
        blocks = kv_bytes // one
    else:
        wanted = -(-running_max // FULL_ONES) * -(-shape.context_tokens // BLOCK_TOKENS)
        blocks = min(int(available_bytes * MEMORY_SHARE) // one, wanted)
    if blocks < BLOCKS_MIN:
        raise RefusedModel(
            f"a cache of {kv_bytes or int(available_bytes * MEMORY_SHARE)} bytes holds {blocks * BLOCK_TOKENS} tokens"
            f" of this model, at least {BLOCKS_MIN * BLOCK_TOKENS} are needed; give it more (--kv-cache-bytes)"
        )
    return int(blocks)
