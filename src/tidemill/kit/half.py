"""The model `half`, which needs no network: `output` = 0.5 * `input`; built in the process that installs the kit."""

from __future__ import annotations

from collections.abc import Mapping


def build() -> Mapping[str, bytes]:
    """`model.onnx` as bytes. No shape is declared, so that a tensor of any rank fits."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["input", "factor"], ["output"])],
        "half",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [0.5])],
    )
    # An old format and an old operator set, so that any ONNX Runtime of the last years opens it.
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return {"model.onnx": model.SerializeToString()}
