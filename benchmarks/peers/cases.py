"""What the other tools are asked to do, each as its own documentation advises for such a model and processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MINILM, CNN = "minilm", "fashion-cnn"
BOTH = (MINILM, CNN)


@dataclass(frozen=True)
class PeerCase:
    """`function` is one of make.py's. `learns`: what comes out depends on the rows, so that each seed has its own.

    `rows` bounds the rows it learns from, where the tool keeps all of their activations in memory.
    """

    name: str
    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = BOTH
    learns: bool = True
    rows: int = 0


_STATIC: Mapping[str, Any] = {"method": "MinMax", "per_channel": True}
_WEIGHTS = ("MatMul", "Gather")  # of a text model: its products with constants, and its tables of words

CASES = (
    # -- OpenVINO alone ------------------------------------------------------------------------------------------------
    PeerCase("OpenVINO, float16 weights", "openvino_ir", {"float16": True}, learns=False),
    # -- onnxruntime.quantization --------------------------------------------------------------------------------------
    PeerCase("onnxruntime static, MinMax", "ort_static", _STATIC),
    PeerCase("onnxruntime static, MinMax, per tensor", "ort_static", {**_STATIC, "per_channel": False}, (CNN,)),
    PeerCase("onnxruntime static, percentile", "ort_static", {**_STATIC, "method": "Percentile"}, (CNN,)),
    PeerCase("onnxruntime static, entropy", "ort_static", {**_STATIC, "method": "Entropy"}, (CNN,)),
    PeerCase("onnxruntime static, MinMax, weights' products", "ort_static", {**_STATIC, "ops": _WEIGHTS}, (MINILM,)),
    PeerCase(
        "onnxruntime static, percentile, weights' products", "ort_static",
        {**_STATIC, "method": "Percentile", "ops": _WEIGHTS}, (MINILM,), rows=48,
    ),
    PeerCase(
        "onnxruntime static, entropy, weights' products", "ort_static",
        {**_STATIC, "method": "Entropy", "ops": _WEIGHTS}, (MINILM,), rows=48,
    ),
    PeerCase("onnxruntime dynamic", "ort_dynamic", {"per_channel": True}, learns=False),
    PeerCase("onnxruntime dynamic, fused", "ort_dynamic", {"per_channel": True, "fuse": True}, (MINILM,), False),
    PeerCase(
        "onnxruntime dynamic, fused, per tensor", "ort_dynamic", {"per_channel": False, "fuse": True}, (MINILM,), False
    ),
    PeerCase("onnxruntime 4 bits, blocks of 32", "ort_nbits", {"bits": 4, "block": 32}, (MINILM,), False),
    PeerCase("onnxruntime 4 bits, blocks of 128", "ort_nbits", {"bits": 4, "block": 128}, (MINILM,), False),
    PeerCase("onnxruntime 4 bits, HQQ", "ort_nbits", {"bits": 4, "block": 32, "hqq": True}, (MINILM,), False),
    PeerCase("onnxruntime 8 bits", "ort_nbits", {"bits": 8, "block": 128}, (MINILM,), False),
    # -- NNCF ----------------------------------------------------------------------------------------------------------
    PeerCase("NNCF int8", "nncf_int8"),
    PeerCase("NNCF int8, full bias correction", "nncf_int8", {"fast": False}, (CNN,)),
    PeerCase("NNCF int8 on ONNX", "nncf_int8", {"onnx": True}),
    PeerCase("NNCF 8-bit weights", "nncf_weights", {"mode": "INT8_ASYM"}, learns=False),
    PeerCase(
        "NNCF 4-bit weights", "nncf_weights", {"mode": "INT4_ASYM", "group": 64, "all_layers": True}, (MINILM,), False
    ),
    PeerCase(
        "NNCF 4-bit weights", "nncf_weights", {"mode": "INT4_ASYM", "group": -1, "all_layers": True}, (CNN,), False
    ),
    PeerCase(
        "NNCF 4-bit weights, scales estimated", "nncf_weights",
        {"mode": "INT4_ASYM", "group": 64, "all_layers": True, "learn": ("scale_estimation", "awq")}, (MINILM,),
        rows=128,
    ),
    PeerCase(
        "NNCF 4-bit weights, GPTQ", "nncf_weights",
        {"mode": "INT4_ASYM", "group": 64, "all_layers": True, "learn": ("gptq",)}, (MINILM,), rows=128,
    ),
    # -- Olive ---------------------------------------------------------------------------------------------------------
    PeerCase("Olive dynamic", "olive_pass", {"type": "OnnxDynamicQuantization"}, learns=False),
    PeerCase(
        "Olive static", "olive_pass",
        {"type": "OnnxStaticQuantization", "activation_type": "uint8", "per_channel": True, "data": True},
    ),
    PeerCase(
        "Olive RTN, 4 bits", "olive_pass",
        {"type": "OnnxBlockWiseRtnQuantization", "block_size": 32, "accuracy_level": 4}, (MINILM,), False,
    ),
)  # fmt: skip
