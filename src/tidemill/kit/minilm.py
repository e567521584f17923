"""Writes the sentence encoder MiniLM as ONNX from its safetensors file; runs in the process that installs the kit.

The network is BERT (Devlin and others, 2018) with 6 layers of 12 heads, then the masked mean of its tokens, of length 1
(Reimers and Gurevych, 2019). The nodes are laid out the way exporters do it, so that every runtime's fusions find
attention, GELU and layer normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tidemill.core.errors import FetchFailed
from tidemill.core.tensor import Array
from tidemill.kit import safetensors

if TYPE_CHECKING:
    from onnx import NodeProto

LAYERS: Final = 6
HEADS: Final = 12
WIDTH: Final = 384
TOKENS_MAX: Final = 512

_EPSILON = 1e-12
_OPSET = 21
_IR_VERSION = 10
_HIDDEN_SCORE = -10_000.0


def model(weights: bytes) -> bytes:
    """`model.onnx` of the file `model.safetensors`.

    int64 `input_ids`, `attention_mask` and `token_type_ids` [N, T] with T up to 512 give float32 `last_hidden_state`
    [N, T, 384] and `sentence_embedding` [N, 384]. Raises `FetchFailed` for another file.
    """
    writer = _Writer(safetensors.tensors(weights))
    _pool(writer, _encode(writer))
    return writer.finish()


class _Writer:
    """Nodes and initializers in the order in which they are written; a node is called after its output.

    Protobuf messages are filled field by field: the bytes are the same under any version of onnx.
    """

    def __init__(self, weights: Mapping[str, Array]) -> None:
        from onnx import GraphProto

        self._graph = GraphProto(name="minilm")
        self._weights = weights
        self._known: set[str] = set()

    def constant(self, name: str, value: Array) -> str:
        from onnx import TensorProto, helper

        if name not in self._known:
            self._known.add(name)
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            self._graph.initializer.append(
                TensorProto(name=name, data_type=kind, dims=value.shape, raw_data=np.ascontiguousarray(value).tobytes())
            )
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.value(name))

    def value(self, name: str) -> Array:
        if name not in self._weights:
            raise FetchFailed(f"the file of weights holds no {name!r}; it is of another network")
        return self._weights[name]

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: int | float | Sequence[int]) -> str:
        from onnx import NodeProto, helper

        node: NodeProto = NodeProto(op_type=op, name=output, input=inputs, output=[output])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self._graph.node.append(node)
        return output

    def linear(self, name: str, x: str, output: str) -> str:
        """x W + b with W stored [in, out], which is how a MatMul wants it."""
        matrix = self.constant(f"{name}.weight", self.value(f"{name}.weight").T)
        product = self.node("MatMul", [x, matrix], f"{output}_matmul")
        return self.node("Add", [product, self.weight(f"{name}.bias")], output)

    def normalised(self, name: str, x: str, output: str) -> str:
        names = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("LayerNormalization", names, output, axis=-1, epsilon=_EPSILON)

    def finish(self) -> bytes:
        from onnx import ModelProto, OperatorSetIdProto, TensorProto, helper

        for name in ("input_ids", "attention_mask", "token_type_ids"):
            self._graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]))
        self._graph.output.extend(
            [
                helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", WIDTH]),
                helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH]),
            ]
        )
        opset = OperatorSetIdProto(domain="", version=_OPSET)
        whole = ModelProto(ir_version=_IR_VERSION, opset_import=[opset], graph=self._graph)
        return bytes(whole.SerializeToString())


def _encode(writer: _Writer) -> str:
    embedded = _embed(writer)
    mask = _mask(writer)
    x = embedded
    for index in range(LAYERS):
        x = _layer(writer, index, x, mask)
    return x


def _integers(*values: int) -> Array:
    return np.array(values, np.int64)


def _number(value: float) -> Array:
    return np.array(value, np.float32)


def _embed(writer: _Writer) -> str:
    shape = writer.node("Shape", ["input_ids"], "ids_shape")
    tokens = writer.node("Gather", [shape, writer.constant("one", np.array(1, np.int64))], "tokens", axis=0)
    tokens = writer.node("Unsqueeze", [tokens, writer.constant("axis_0", _integers(0))], "tokens_1")
    positions = writer.constant("positions", np.arange(TOKENS_MAX, dtype=np.int64)[np.newaxis])
    ends = [positions, "axis_0", tokens, writer.constant("axis_1", _integers(1))]
    here = writer.node("Slice", ends, "position_ids")
    table = "embeddings.{}_embeddings.weight".format
    words = writer.node("Gather", [writer.weight(table("word")), "input_ids"], "words", axis=0)
    kinds = writer.node("Gather", [writer.weight(table("token_type")), "token_type_ids"], "kinds", axis=0)
    places = writer.node("Gather", [writer.weight(table("position")), here], "places", axis=0)
    both = writer.node("Add", [words, kinds], "words_kinds")
    return writer.normalised("embeddings.LayerNorm", writer.node("Add", [both, places], "embedded"), "embeddings")


def _mask(writer: _Writer) -> str:
    """[N, 1, 1, T]: 0 where there is a token, a score that no softmax sees where there is none."""
    mask = writer.node("Unsqueeze", ["attention_mask", "axis_1"], "mask_1")
    mask = writer.node("Unsqueeze", [mask, writer.constant("axis_2", _integers(2))], "mask_2")
    mask = writer.node("Cast", [mask], "mask_float", to=1)
    mask = writer.node("Sub", [writer.constant("unit", _number(1)), mask], "mask_absent")
    return writer.node("Mul", [mask, writer.constant("hidden_score", _number(_HIDDEN_SCORE))], "mask")


def _layer(writer: _Writer, index: int, x: str, mask: str) -> str:
    weights, at = f"encoder.layer.{index}", f"layer{index}"
    heads = writer.constant("heads", _integers(0, 0, HEADS, WIDTH // HEADS))

    def split(part: str, perm: Sequence[int]) -> str:
        whole = writer.linear(f"{weights}.attention.self.{part}", x, f"{at}_{part}")
        apart = writer.node("Reshape", [whole, heads], f"{at}_{part}_heads")
        return writer.node("Transpose", [apart], f"{at}_{part}_turned", perm=perm)

    query, key, value = split("query", (0, 2, 1, 3)), split("key", (0, 2, 3, 1)), split("value", (0, 2, 1, 3))
    scores = writer.node("MatMul", [query, key], f"{at}_scores")
    root = writer.constant("root", _number((WIDTH // HEADS) ** 0.5))
    scores = writer.node("Div", [scores, root], f"{at}_scores_scaled")
    scores = writer.node("Add", [scores, mask], f"{at}_scores_masked")
    shares = writer.node("Softmax", [scores], f"{at}_shares", axis=-1)
    context = writer.node("MatMul", [shares, value], f"{at}_context")
    context = writer.node("Transpose", [context], f"{at}_context_turned", perm=(0, 2, 1, 3))
    context = writer.node("Reshape", [context, writer.constant("whole", _integers(0, 0, WIDTH))], f"{at}_context_whole")
    attended = writer.linear(f"{weights}.attention.output.dense", context, f"{at}_attention")
    attended = writer.node("Add", [attended, x], f"{at}_attention_residual")
    attended = writer.normalised(f"{weights}.attention.output.LayerNorm", attended, f"{at}_attended")
    inner = writer.linear(f"{weights}.intermediate.dense", attended, f"{at}_inner")
    inner = writer.node("Gelu", [inner], f"{at}_gelu")
    outer = writer.linear(f"{weights}.output.dense", inner, f"{at}_outer")
    outer = writer.node("Add", [outer, attended], f"{at}_outer_residual")
    last = "last_hidden_state" if index == LAYERS - 1 else f"{at}_output"
    return writer.normalised(f"{weights}.output.LayerNorm", outer, last)


def _pool(writer: _Writer, states: str) -> None:
    present = writer.node("Cast", ["attention_mask"], "present", to=1)
    present = writer.node("Unsqueeze", [present, writer.constant("axis_last", _integers(-1))], "present_column")
    kept = writer.node("Mul", [states, present], "states_present")
    total = writer.node("ReduceSum", [kept, "axis_1"], "states_sum", keepdims=0)
    count = writer.node("ReduceSum", [present, "axis_1"], "present_sum", keepdims=0)
    # Never zero: a row without a single token is answered with zeros, not with NaN.
    count = writer.node("Max", [count, writer.constant("count_min", _number(1e-9))], "present_count")
    mean = writer.node("Div", [total, count], "states_mean")
    squares = writer.node("Mul", [mean, mean], "mean_squares")
    squares = writer.node("ReduceSum", [squares, "axis_last"], "mean_squares_sum", keepdims=1)
    length = writer.node("Sqrt", [squares], "mean_length")
    length = writer.node("Max", [length, writer.constant("length_min", _number(1e-12))], "mean_length_safe")
    writer.node("Div", [mean, length], "sentence_embedding")
