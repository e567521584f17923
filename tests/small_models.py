"""Small models that show what a service must bear, laid out as a repository DIR/NAME/1/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tidemill.core.tensor import DTYPES
from tidemill.kit.install import install

GATHER_ROWS = 10
SIDE = 192
STEPS_MIN = 16


def co2_table(rows: int) -> str:
    """tidemill.toml of a model that answers the last `rows` values of a CSV with dates as what will follow them."""
    return f"""engine = "echo"
[[pre]]
step = "csv"
columns = ["co2"]
index = "date"

[[pre]]
step = "window"
input = "co2"
output = "x"
size = {rows}
each = "last"

[[post]]
step = "forecast"
input = "y"

[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, {rows}]

[[outputs]]
name = "y"
datatype = "FP32"
shape = [-1, {rows}]
"""


def lay_out(folder: Path) -> Path:
    """Every small model under `folder`, `half` among them. Needs no network."""
    install(["half"], folder)
    for name, model in {
        "fixed": fixed(),
        "two": two_inputs(),
        "whole": whole_numbers(),
        "text": text(),
        "poison": poison(),
        "slow": slow(),
        "kinds": kinds(),
        "named": named_kinds(),
        "sum": summed(),
    }.items():
        save(folder, name, model)
    (folder / "kinds" / "tidemill.toml").write_text('labels = ["cat", "dog", "Mühle"]', "utf-8")
    for datatype in DTYPES:
        echo(folder, f"echo-{datatype.lower()}", datatype)
    return folder


def save(folder: Path, name: str, model: ModelProto, version: int = 1) -> Path:
    place = folder / name / str(version)
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(model.SerializeToString())
    return place


def echo(folder: Path, name: str, datatype: str, shape: tuple[int, ...] = (-1, -1), version: int = 1) -> Path:
    """Answers `x` as `y`."""
    place = folder / name / str(version)
    place.mkdir(parents=True)
    tables = [
        f'[[{kind}]]\nname = "{tensor}"\ndatatype = "{datatype}"\nshape = {list(shape)}\n'
        for kind, tensor in (("inputs", "x"), ("outputs", "y"))
    ]
    (place / "tidemill.toml").write_text("\n".join(['engine = "echo"', *tables]))
    return place


def times(factor: float) -> ModelProto:
    """y = factor * x, FP32 of [rows, 1]: which version answered can be read from the answer."""
    return _model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ["rows", 1])],
        [_tensor("y", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.array(factor, np.float32), "factor")],
    )


def publish(folder: Path, name: str, version: int, model: ModelProto) -> Path:
    """A version that appears whole: written beside its place, then renamed."""
    written = folder / name / f".writing-{version}"
    written.mkdir(parents=True)
    (written / "model.onnx").write_bytes(model.SerializeToString())
    return written.rename(written.with_name(str(version)))


def fixed() -> ModelProto:
    """y = -x, FP32 of exactly [2, 3]: no batch dimension."""
    return _model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, [2, 3])],
        [_tensor("y", TensorProto.FLOAT, [2, 3])],
    )


def two_inputs() -> ModelProto:
    """sum = a + b, twice = count + count."""
    return _model(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Add", ["count", "count"], ["twice"])],
        [
            _tensor("a", TensorProto.FLOAT, ["rows", 3]),
            _tensor("b", TensorProto.FLOAT, ["rows", 3]),
            _tensor("count", TensorProto.INT64, ["rows", 1]),
        ],
        [_tensor("sum", TensorProto.FLOAT, ["rows", 3]), _tensor("twice", TensorProto.INT64, ["rows", 1])],
    )


def whole_numbers() -> ModelProto:
    """y = x, INT64 [rows, 2]."""
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [_tensor("x", TensorProto.INT64, ["rows", 2])],
        [_tensor("y", TensorProto.INT64, ["rows", 2])],
    )


def text() -> ModelProto:
    """y = x, strings."""
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [_tensor("x", TensorProto.STRING, ["rows"])],
        [_tensor("y", TensorProto.STRING, ["rows"])],
    )


def poison() -> ModelProto:
    """y = 10 * x for x from 0 to 9; any other x fails, and with it a batch that holds it."""
    table = numpy_helper.from_array(np.arange(0, 10 * GATHER_ROWS, 10, dtype=np.float32), "table")
    return _model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [_tensor("x", TensorProto.INT64, ["rows"])],
        [_tensor("y", TensorProto.FLOAT, ["rows"])],
        [table],
    )


def kinds() -> ModelProto:
    """p = softmax(x), FP32 [rows, 3]; laid out with labels."""
    return _model(
        [helper.make_node("Softmax", ["x"], ["p"])],
        [_tensor("x", TensorProto.FLOAT, ["rows", 3])],
        [_tensor("p", TensorProto.FLOAT, ["rows", 3])],
    )


def named_kinds() -> ModelProto:
    """scores = a + b, classes the strings "low" and "high" for each row: what TensorFlow's classifiers answer."""
    return _model(
        [
            helper.make_node("Add", ["a", "b"], ["scores"]),
            helper.make_node("Shape", ["scores"], ["shape"]),
            helper.make_node("Expand", ["names", "shape"], ["classes"]),
            helper.make_node("Identity", ["b"], ["outputs"]),
        ],
        [_tensor("a", TensorProto.FLOAT, ["rows", 2]), _tensor("b", TensorProto.FLOAT, ["rows", 1])],
        [
            _tensor("scores", TensorProto.FLOAT, ["rows", 2]),
            _tensor("classes", TensorProto.STRING, ["rows", 2]),
            _tensor("outputs", TensorProto.FLOAT, ["rows", 1]),
        ],
        [helper.make_tensor("names", TensorProto.STRING, [1, 2], [b"low", b"high"])],
    )


def summed() -> ModelProto:
    """y = the sum of each row of x, FP32 [rows, 1]."""
    return _model(
        [helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1)],
        [_tensor("x", TensorProto.FLOAT, ["rows", "columns"])],
        [_tensor("y", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )


def slow(steps: int | None = None) -> ModelProto:
    """As many matrix products as its input `steps` says (at least 16; or `steps`, whatever it says), each a good tenth
    of a millisecond; y is 0.

    The least keeps it slow for the zeros of a warm-up, so that it never runs on the service's own thread.
    """
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "weights"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "step",
        [
            _tensor("i", TensorProto.INT64, []),
            _tensor("go_in", TensorProto.BOOL, []),
            _tensor("state_in", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
        [_tensor("go_out", TensorProto.BOOL, []), _tensor("state_out", TensorProto.FLOAT, [SIDE, SIDE])],
    )
    fixed_steps = [] if steps is None else [numpy_helper.from_array(np.array(steps, np.int64), "always")]
    return _model(
        [
            helper.make_node("Max", ["steps", "least"], ["wanted"]),
            helper.make_node("Loop", ["wanted" if steps is None else "always", "go", "start"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["steps"], ["told"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sum", "told"], ["y"]),
        ],
        [_tensor("steps", TensorProto.INT64, [])],
        [_tensor("y", TensorProto.FLOAT, [])],
        [
            numpy_helper.from_array(np.zeros((SIDE, SIDE), np.float32), "weights"),
            numpy_helper.from_array(np.zeros((SIDE, SIDE), np.float32), "start"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array(STEPS_MIN, np.int64), "least"),
            *fixed_steps,
        ],
    )


def _tensor(name: str, kind: int, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    initializers: list[TensorProto] | None = None,
) -> ModelProto:
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers or [])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def refused_by_its_engine(folder: Path) -> Path:
    """A model `broken` whose file is whole, and whose operator no engine has."""
    made = times(2)
    made.graph.node[0].op_type = "NoSuchOperator"
    return save(folder, "broken", made)
