"""OpenVINO as it computes of itself on a processor that knows bfloat16; our engine asks it for float32 instead.

Loaded by `tidemill.compress.measure_child`, and in the benchmark's process to judge what comes out.
"""

from __future__ import annotations

import openvino as ov

from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.engine import openvino as engine


def load(package: ModelPackage, threads: int) -> engine.OpenVinoEngine:
    plain = engine.load(package, threads)
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16"}
    core = ov.Core()
    try:
        compiled = core.compile_model(core.read_model(str(package.path)), "CPU", properties)
    except RuntimeError as error:
        raise RefusedModel(f"OpenVINO cannot compile {package.path} for bfloat16: {error}") from error
    return engine.OpenVinoEngine(compiled, plain.signature, plain.signed)
