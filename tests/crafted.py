"""Model files made by hand: good ones, and those that a malicious or unlucky hand would leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from tidemill.core import schemas
from tidemill.core.package import ModelConfig, ModelPackage
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.kit.install import install

FREE = object()
"""As a shape: not even the rank is told."""


def value(name: str, kind: int, shape: Any) -> ValueInfoProto:
    if shape is FREE:
        told = ValueInfoProto(name=name)
        told.type.tensor_type.elem_type = kind
        return told
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    initializers: list[TensorProto] | None = None,
) -> ModelProto:
    graph = helper.make_graph(nodes, "crafted", inputs, outputs, initializers or [])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def identity(kind: int = TensorProto.FLOAT, shape: Any = ("rows", 2)) -> ModelProto:
    """y = x."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", kind, shape)], [value("y", kind, shape)])


def plus_minus(rows: str | int = "rows") -> ModelProto:
    """up = x + 1, down = x - 1, FP32 [rows, 2]; in this order."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    return model(
        [helper.make_node("Add", ["x", "one"], ["up"]), helper.make_node("Sub", ["x", "one"], ["down"])],
        [value("x", TensorProto.FLOAT, [rows, 2])],
        [value("up", TensorProto.FLOAT, [rows, 2]), value("down", TensorProto.FLOAT, [rows, 2])],
        [one],
    )


def pointing(where: str, *, length: str | None = "16", offset: str | None = None, location: bool = True) -> TensorProto:
    """Four floats that lie at `where`."""
    told = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", where if location else None), ("length", length), ("offset", offset)):
        if text is not None:
            told.external_data.add(key=key, value=text)
    return told


def with_weights(weights: TensorProto) -> ModelProto:
    """y = x + weights."""
    return model(
        [helper.make_node("Add", ["x", "weights"], ["y"])],
        [value("x", TensorProto.FLOAT, ["rows", 4])],
        [value("y", TensorProto.FLOAT, ["rows", 4])],
        [weights],
    )


def hidden(weights: TensorProto, place: str) -> ModelProto:
    """A model with `weights` at one of `HIDING_PLACES`."""
    made = identity()
    node = made.graph.node[0]
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "inner", [], [])
    if place == "attribute":
        node.attribute.append(AttributeProto(name="a", type=AttributeProto.TENSOR, t=weights))
    elif place == "list of tensors":
        node.attribute.append(AttributeProto(name="a", type=AttributeProto.TENSORS, tensors=[weights]))
    elif place == "subgraph":
        node.attribute.append(AttributeProto(name="a", type=AttributeProto.GRAPH, g=_holding(inner, weights)))
    elif place == "list of subgraphs":
        node.attribute.append(AttributeProto(name="a", type=AttributeProto.GRAPHS, graphs=[_holding(inner, weights)]))
    elif place == "subgraph's constant":
        inner.node[0].attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR, t=weights))
        node.attribute.append(AttributeProto(name="a", type=AttributeProto.GRAPH, g=inner))
    elif place == "sparse values":
        made.graph.sparse_initializer.add(values=weights)
    elif place == "sparse indices":
        made.graph.sparse_initializer.add(indices=weights)
    elif place == "function":
        constant = helper.make_node("Constant", [], ["c"])
        constant.attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR, t=weights))
        made.functions.add(name="f", domain="d", node=[constant])
    else:
        made.training_info.add(algorithm=_holding(inner, weights))
    return made


HIDING_PLACES = (
    "attribute",
    "list of tensors",
    "subgraph",
    "list of subgraphs",
    "subgraph's constant",
    "sparse values",
    "sparse indices",
    "function",
    "training",
)


def _holding(graph: GraphProto, weights: TensorProto) -> GraphProto:
    graph.initializer.append(weights)
    return graph


def save(folder: Path, made: ModelProto, name: str = "model.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def package(path: Path, kind: str = "onnx", **more: Any) -> ModelPackage:
    return ModelPackage("m", 1, path, kind, 1, **more)


def echo_package(
    name: str = "echo", version: int = 1, datatype: str = "FP32", shape: tuple[int, ...] | None = (-1, 2), **config: Any
) -> ModelPackage:
    """Answers `x` as `y` and `a` as `b`."""
    inputs, outputs = (tuple(TensorSpec(each, datatype, shape) for each in pair) for pair in (("x", "a"), ("y", "b")))
    return ModelPackage(
        name, version, Path("nowhere"), "echo", 0, ModelConfig(engine="echo", inputs=inputs, outputs=outputs, **config)
    )


def write_ir(folder: Path, source: Path) -> Path:
    """The ONNX file `source` as OpenVINO writes it: model.xml and model.bin."""
    import openvino as ov

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.xml"
    ov.save_model(ov.Core().read_model(str(source)), str(path), compress_to_fp16=False)
    return path


def kit_saved_model(into: Path) -> Path:
    """The folder of the kit's SavedModel: FP32 [N, 43844, 1] to `contour`, `note`, `onset`."""
    return install(["basic-pitch-savedmodel"], into)[0] / "1"


@contextmanager
def changed_saved_model(folder: Path) -> Iterator[Any]:
    """Its `saved_model.pb`, written back on leaving."""
    path = folder / "saved_model.pb"
    saved = schemas.message("tensorflow.SavedModel").FromString(path.read_bytes())
    yield saved
    path.write_bytes(saved.SerializeToString())


def saved_model(signatures: dict[str, Signature], tags: tuple[str, ...] = ("serve",)) -> Any:
    """A `SavedModel` that declares signatures and holds nothing that could run."""
    saved = schemas.message("tensorflow.SavedModel")(saved_model_schema_version=1)
    add_graph(saved, signatures, tags)
    return saved


def add_graph(saved: Any, signatures: dict[str, Signature], tags: tuple[str, ...]) -> None:
    graph = saved.meta_graphs.add()
    graph.meta_info_def.tags.extend(tags)
    for name, signature in signatures.items():
        for specs, infos in (
            (signature.inputs, graph.signature_def[name].inputs),
            (signature.outputs, graph.signature_def[name].outputs),
        ):
            for spec in specs:
                describe(infos[spec.name], spec)


def describe(info: Any, spec: TensorSpec) -> None:
    info.name = f"{spec.name}:0"
    info.dtype = TF_NUMBERS.get(spec.datatype, 8)  # complex, for what we have no word for
    if spec.shape is None:
        info.tensor_shape.unknown_rank = True
    for side in spec.shape or ():
        info.tensor_shape.dim.add(size=side)
