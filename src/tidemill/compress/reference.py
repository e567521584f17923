"""What an emitted model computes, in numpy and float32: the yardstick for every engine. Slow; for tests and checks.

Runs in any process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tidemill.compress.emit.packing import unpack
from tidemill.compress.graph import Graph
from tidemill.core.tensor import Array, Tensors


def decode_nbits(packed: Array, scales: Array, zero_points: Array | None, bits: int, block: int, columns: int) -> Array:
    """float32 [out, in] that a MatMulNBits multiplies with: `packed` is its uint8 [out, blocks, bytes]."""
    out, count, _ = packed.shape
    codes = unpack(packed, bits, block).astype(np.float32)
    if zero_points is None:
        zeros: Array = np.full((out, count), 2 ** (bits - 1), np.float32)
    elif zero_points.dtype == np.uint8:
        zeros = unpack(zero_points.reshape(out, -1), bits, count).astype(np.float32)
    else:
        zeros = zero_points.reshape(out, count)
    weight = (codes - zeros[..., None]) * scales.reshape(out, count, 1)
    return np.asarray(weight.reshape(out, -1)[:, :columns], np.float32)


class MatMulNBits(OpRun):  # type: ignore[misc]
    """The operator as its specification says, its input not rounded. (onnx finds it by the name of the class.)"""

    op_domain = "com.microsoft"

    def _run(
        self, source: Array, packed: Array, scales: Array, zero_points: Any = None, g_idx: Any = None, bias: Any = None,
        K: int = 0, N: int = 0, bits: int = 4, block_size: int = 32, accuracy_level: int = 0, **_: Any,
    ) -> tuple[Array]:  # fmt: skip
        weight = decode_nbits(packed.reshape(N, -1, block_size * bits // 8), scales, zero_points, bits, block_size, K)
        product = source @ weight.T
        return (np.asarray(product if bias is None else product + bias, np.float32),)


class GatherElements(OpRun):  # type: ignore[misc]
    """onnx's own refuses a negative axis."""

    op_domain = ""

    def _run(self, values: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(values, indices.astype(np.intp), axis),)


class QuantizeLinear(OpRun):  # type: ignore[misc]
    """onnx has none below opset 19. To 8 bits; per tensor."""

    op_domain = ""

    def _run(self, values: Array, scale: Array, zero_point: Array, **_: Any) -> tuple[Array]:
        ends = np.iinfo(zero_point.dtype)
        codes = np.rint(values / scale) + zero_point.astype(np.float32)
        return (np.clip(codes, ends.min, ends.max).astype(zero_point.dtype),)


class DequantizeLinear(OpRun):  # type: ignore[misc]
    """onnx has none below opset 19. Per tensor or along an axis."""

    op_domain = ""

    def _run(self, codes: Array, scale: Array, zero_point: Any = None, axis: int = 1, **_: Any) -> tuple[Array]:
        along = [1] * codes.ndim
        if scale.ndim:
            along[axis] = -1
        centred = codes.astype(np.float32)
        if zero_point is not None:
            centred = centred - zero_point.astype(np.float32).reshape(along if zero_point.ndim else ())
        return (np.asarray(centred * scale.reshape(along if scale.ndim else ()), np.float32),)


OPERATORS = [MatMulNBits, GatherElements, QuantizeLinear, DequantizeLinear]


def run(model: Graph | Any, feeds: Tensors) -> dict[str, Array]:
    """The outputs of a `Graph` or an `onnx.ModelProto` by name."""
    proto = model.to_model() if isinstance(model, Graph) else model
    answers = ReferenceEvaluator(proto, new_ops=OPERATORS).run(None, dict(feeds))
    return {each.name: np.asarray(answer) for each, answer in zip(proto.graph.output, answers, strict=True)}
