"""How many tokens a language model's cache holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import RefusedModel
from tidemill.engine.generate.limits import BLOCKS_MIN, MEMORY_SHARE, Shape, block_bytes, kv_blocks

SMOLLM2 = Shape(layers=30, kv_heads=3, key_width=64, value_width=64, context_tokens=8192)


def test_a_block_takes_what_openvino_says_it_takes() -> None:
    assert block_bytes(SMOLLM2) == 437_760


@given(st.integers(0, 2**36), st.integers(2**20, 2**40), st.integers(1, 1024))
def test_cache_is_never_larger_than_allowed(kv_bytes: int, available: int, running: int) -> None:
    try:
        blocks = kv_blocks(SMOLLM2, kv_bytes, available, running)
    except RefusedModel:
        assert (kv_bytes or available * MEMORY_SHARE) < (BLOCKS_MIN + 1) * block_bytes(SMOLLM2)
        return
    assert blocks >= BLOCKS_MIN
    assert blocks * block_bytes(SMOLLM2) <= (kv_bytes or available * MEMORY_SHARE)


def test_too_little_names_the_setting() -> None:
    with pytest.raises(RefusedModel, match="--kv-cache-bytes"):
        kv_blocks(SMOLLM2, 1000, 2**33, 8)
