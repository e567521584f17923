"""A language model of one layer of zeros in GGUF, so that grammars can be compiled without a real model's memory; runs
in the child that checks."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

WIDTH: Final = 64
CONTEXT: Final = 128
ALIGN: Final = 32
_F32, _F16 = 0, 1
_U32_KIND, _F32_KIND, _STRING_KIND = 4, 6, 8
SQUARE: Final = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS: Final = ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight")
FACTS: Final[dict[str, int | float]] = {
    "general.file_type": 1,
    "llama.block_count": 1,
    "llama.context_length": CONTEXT,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": WIDTH,
    "llama.attention.head_count": 1,
    "llama.attention.head_count_kv": 1,
    "llama.rope.dimension_count": WIDTH,
    "llama.rope.freq_base": 10_000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def write(path: Path, vocabulary: int) -> None:
    """A Llama that knows `vocabulary` tokens and finds all alike; without a tokenizer."""
    shapes = {"token_embd.weight": (vocabulary, WIDTH)}
    shapes |= {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in SQUARE}
    infos, sizes, at = [], [], 0
    for name, shape in [*shapes.items(), *((name, (WIDTH,)) for name in NORMS)]:
        kind, width = (_F32, 4) if name in NORMS else (_F16, 2)
        infos.append(_string(name) + struct.pack("<I", len(shape)))
        infos.append(b"".join(struct.pack("<Q", side) for side in reversed(shape)) + struct.pack("<IQ", kind, at))
        size = int(np.prod(shape)) * width
        sizes.append(size + -size % ALIGN)
        at += sizes[-1]
    pairs = [_string("general.architecture") + struct.pack("<I", _STRING_KIND) + _string("llama")]
    pairs += [_pair(name, value) for name, value in FACTS.items()]
    pairs.append(_pair("llama.vocab_size", vocabulary))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(sizes), len(pairs)) + b"".join(pairs) + b"".join(infos)
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGN))
        file.truncate(file.tell() + at)


def _pair(name: str, value: float) -> bytes:
    if isinstance(value, int):
        return _string(name) + struct.pack("<II", _U32_KIND, value)
    return _string(name) + struct.pack("<If", _F32_KIND, value)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
