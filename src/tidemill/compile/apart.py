"""How far what was built is from what it was built of, token by token; in the command line's process."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tidemill.core.errors import RefusedExport
from tidemill.core.tensor import Array

NATS_MAX: Final = 0.5
"""A graph that was traced or rewritten wrongly is off by whole nats a token; int8 costs some hundredths."""
PROBE: Final = (
    "The mill by the river turned, and the miller said to his daughter that the tide would come before night."
)


def log_probabilities(model: Any, ids: list[int]) -> Array:
    """`[tokens, vocabulary]` of float64: of the next token after each of `ids`, computed in floats. `model` is a
    stateful language model, or the path of one."""
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", exact)
    names = {name for port in compiled.inputs for name in port.names}
    count = len(ids)
    given = {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, count), np.int64),
        "position_ids": np.arange(count, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    logits = compiled({name: value for name, value in given.items() if name in names})[0][0].astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True)))


def nats(found: Array, wanted: Array) -> float:
    """Mean Kullback-Leibler divergence of the next token's distribution `found` from `wanted`, log probabilities.

    Raises `RefusedExport` beyond `NATS_MAX`.
    """
    apart = float((np.exp(wanted) * (wanted - found)).sum(-1).mean())
    if not apart <= NATS_MAX:
        raise RefusedExport(
            f"what was built is {apart:.2f} nats a token from its source, at most {NATS_MAX} are taken; these versions"
            " do not read this architecture rightly"
        )
    return apart
