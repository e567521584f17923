"""A GGUF's own weights are found for what a graph has of them: rounded, or with the rows of its heads moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

from tidemill.compile.gguf_weights import Weights
from tidemill.core.tensor import Array

HEADS, KV_HEADS, WIDTH = 4, 2, 64
NAMES = {"blk.0.attn_q.weight": 64, "blk.0.attn_k.weight": 32, "blk.0.attn_v.weight": 32, "blk.0.ffn_up.weight": 64}


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Array]]:
    """A file, and its weights as its format has them."""
    random, true = np.random.default_rng(1), {}
    file = GGUFWriter(tmp_path / "m.gguf", "llama")
    for name, rows in NAMES.items():
        packed = quants.quantize(random.normal(size=(rows, WIDTH)).astype(np.float32), GGMLQuantizationType.Q4_1)
        true[name] = np.asarray(quants.dequantize(packed, GGMLQuantizationType.Q4_1))
        file.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q4_1)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return tmp_path / "m.gguf", true


def read(rows: Array, heads: int) -> Array:
    """As a graph has them: rounded, the halves of each head one behind the other."""
    rounded = rows + np.random.default_rng(2).normal(size=rows.shape, scale=0.08).astype(np.float32)
    return turned(rounded, heads)


def turned(rows: Array, heads: int) -> Array:
    if not heads:
        return rows
    order = np.arange(len(rows)).reshape(heads, -1, 2).transpose(0, 2, 1).reshape(-1)
    return np.asarray(rows[order])


def test_each_is_found_once_by_what_it_holds(written: tuple[Path, dict[str, Array]]) -> None:
    path, true = written
    weights = Weights(path, (HEADS, KV_HEADS))
    turns = {"blk.0.attn_q.weight": HEADS, "blk.0.attn_k.weight": KV_HEADS}
    for name in reversed(NAMES):
        found = weights.take(read(true[name], turns.get(name, 0)))
        assert found is not None, name
        assert (found == turned(true[name], turns.get(name, 0))).all(), name
    assert weights.take(read(true["blk.0.ffn_up.weight"], 0)) is None


def test_architectures_that_move_no_rows_are_found_as_they_are(written: tuple[Path, dict[str, Array]]) -> None:
    path, true = written
    weights = Weights(path, (0, 0))
    assert weights.take(read(true["blk.0.attn_q.weight"], HEADS)) is None
    assert weights.take(read(true["blk.0.attn_q.weight"], 0)) is not None


def test_what_is_none_of_them_is_not_found(written: tuple[Path, dict[str, Array]]) -> None:
    weights = Weights(written[0], (HEADS, KV_HEADS))
    assert weights.take(np.random.default_rng(9).normal(size=(64, WIDTH)).astype(np.float32)) is None
    assert weights.take(np.ones((3, 5), np.float32)) is None
