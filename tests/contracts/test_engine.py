"""`Engine`: what every engine keeps, whatever runs beneath."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crafted
from tidemill.core.contracts import Engine
from tidemill.core.errors import RefusedByEngine, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import DTYPES, Signature, Tensors
from tidemill.engine import echo, onnx, openvino
from tidemill.repository import layout


class Subject:
    """An engine, how to build it again, and what it must answer to `inputs`."""

    def __init__(self, module: Any, package: ModelPackage, inputs: Tensors, wanted: Tensors) -> None:
        self.module = module
        self.package = package
        self.inputs = inputs
        self.wanted = wanted
        self.engine: Engine = self.load()

    def load(self) -> Engine:
        made: Engine = self.module.load(self.package, 1)
        return made

    def predict(self, outputs: Sequence[str] = (), inputs: Tensors | None = None) -> Tensors:
        given = self.inputs if inputs is None else inputs
        self.engine.signature.check(given)
        return self.engine.predict(given, outputs)

    def other_inputs(self) -> Tensors:
        return {name: np.ascontiguousarray(array[::-1]) * 3 for name, array in self.inputs.items()}


X = np.arange(6, dtype=np.float32).reshape(3, 2)
UP_DOWN = {"up": X + 1, "down": X - 1}


def _onnx(folder: Path) -> Subject:
    return Subject(onnx, crafted.package(crafted.save(folder, crafted.plus_minus())), {"x": X}, UP_DOWN)


def _openvino_onnx(folder: Path) -> Subject:
    return Subject(openvino, crafted.package(crafted.save(folder, crafted.plus_minus())), {"x": X}, UP_DOWN)


def _openvino_ir(folder: Path) -> Subject:
    path = crafted.write_ir(folder / "ir", crafted.save(folder, crafted.plus_minus()))
    return Subject(openvino, crafted.package(path, "openvino"), {"x": X}, UP_DOWN)


def _openvino_saved_model(folder: Path) -> Subject:
    """The kit's model hears a note of 440 Hz: MIDI 69, which is row 48 of its 88 keys."""
    package = layout.package("pitch", 1, crafted.kit_saved_model(folder))
    tone = np.sin(2 * np.pi * 440 / 22050 * np.arange(43844)).astype(np.float32)
    return Subject(openvino, package, {"input_2": np.stack([tone, tone * 0.5])[:, :, None]}, {})


def _echo(folder: Path) -> Subject:
    inputs = {"x": X, "a": X * 2}
    return Subject(echo, crafted.echo_package(), inputs, {"y": inputs["x"], "b": inputs["a"]})


KINDS = {
    "onnx": _onnx,
    "openvino-onnx": _openvino_onnx,
    "openvino-ir": _openvino_ir,
    "openvino-savedmodel": _openvino_saved_model,
    "echo": _echo,
}


if find_spec("tensorflow"):  # run by tests/engine/test_tensorflow.py where it is

    def _tensorflow(folder: Path) -> Subject:
        import saved_models
        from tidemill.engine import tensorflow

        package = layout.package("plus", 1, saved_models.plus_minus(folder / "saved"))
        return Subject(tensorflow, package, {"x": X}, {"down": UP_DOWN["down"], "up": UP_DOWN["up"]})

    KINDS["tensorflow"] = _tensorflow

SLOW = {"openvino-savedmodel"}


@pytest.fixture(
    params=[pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS], scope="module"
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    made = KINDS[request.param](tmp_path_factory.mktemp("engine"))
    yield made
    made.engine.close()


def same(one: Tensors, other: Tensors) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)


def names(subject: Subject) -> list[str]:
    return [spec.name for spec in subject.engine.signature.outputs]


def test_answer_is_right_and_fits_the_signature(subject: Subject) -> None:
    answer = subject.predict()
    Signature(subject.engine.signature.outputs, ()).check(answer)
    if subject.wanted:
        same(answer, subject.wanted)
    else:
        assert answer["note"].sum(axis=1).argmax(axis=1).tolist() == [48, 48]


def test_all_outputs_come_in_the_signature_s_order(subject: Subject) -> None:
    assert list(subject.predict()) == names(subject)


def test_outputs_are_those_asked_for_in_their_order(subject: Subject) -> None:
    whole = subject.predict()
    backwards = names(subject)[::-1]
    same(subject.predict(backwards), {name: whole[name] for name in backwards})
    same(subject.predict((backwards[0],)), {backwards[0]: whole[backwards[0]]})


def test_answer_is_contiguous_and_the_caller_s_own(subject: Subject) -> None:
    answer = subject.predict()
    kept = {name: array.copy() for name, array in answer.items()}
    for array in answer.values():
        assert isinstance(array, np.ndarray)
        assert array.flags.c_contiguous
    subject.predict(inputs=subject.other_inputs())
    same(answer, kept)


def test_answer_outlives_the_engine(subject: Subject) -> None:
    engine = subject.load()
    answer = engine.predict(subject.inputs, ())
    engine.close()
    same(answer, subject.predict())


def test_inputs_stay_as_they_were(subject: Subject) -> None:
    before = {name: array.copy() for name, array in subject.inputs.items()}
    subject.predict()
    same(subject.inputs, before)


def test_inputs_may_be_read_only_and_lie_anywhere(subject: Subject) -> None:
    """A door hands over views of a request's body: not writeable, at any address."""
    odd = {}
    for name, array in subject.inputs.items():
        body = b"\0" + array.tobytes()
        odd[name] = np.frombuffer(body, array.dtype, array.size, offset=1).reshape(array.shape)
        assert not odd[name].flags.writeable
    same(subject.predict(inputs=odd), subject.predict())


def test_number_of_rows_may_change_from_call_to_call(subject: Subject) -> None:
    whole = subject.predict()
    for count in (1, 3) if subject.package.format == "savedmodel" else (1, 3, 0):  # convolutions need not take nothing
        some = {name: np.ascontiguousarray(array[:count]) for name, array in subject.inputs.items()}
        same(subject.predict(inputs=some), {name: array[:count] for name, array in whole.items()})


def test_rows_are_kept_apart(subject: Subject) -> None:
    assert subject.engine.signature.batched
    twice = {name: np.concatenate([array, array]) for name, array in subject.inputs.items()}
    whole = subject.predict()
    same(subject.predict(inputs=twice), {name: np.concatenate([array, array]) for name, array in whole.items()})


def test_loading_twice_gives_two_that_do_not_meet(subject: Subject) -> None:
    other = subject.load()
    assert other.signature == subject.engine.signature
    other.close()
    subject.predict()


# -- what depends on the format ----------------------------------------------------------------------------------------

ON_ONNX = [pytest.param(onnx, id="onnx"), pytest.param(openvino, id="openvino")]
NUMBERS = {
    "BOOL": 9, "UINT8": 2, "UINT16": 4, "UINT32": 12, "UINT64": 13, "INT8": 3, "INT16": 5, "INT32": 6, "INT64": 7,
    "FP16": 10, "FP32": 1, "FP64": 11,
}  # fmt: skip


@pytest.mark.parametrize("module", ON_ONNX)
@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_goes_through_bit_for_bit(tmp_path: Path, module: Any, datatype: str) -> None:
    dtype = DTYPES[datatype]
    values = [0, 1] if datatype == "BOOL" else [0, 1, 100]
    if dtype.kind in "iu":
        bounds = np.iinfo(np.int32 if module is openvino and dtype.itemsize == 8 else dtype)
        values += [max(bounds.min, np.iinfo(dtype).min), bounds.max]
    elif dtype.kind == "f":
        values += [np.inf, -np.inf, np.nan, -0.0, np.finfo(dtype).tiny]
    x = np.array(values, dtype)
    engine = module.load(crafted.package(crafted.save(tmp_path, crafted.identity(NUMBERS[datatype], ["rows"]))), 1)
    assert engine.signature.inputs[0].datatype == engine.signature.outputs[0].datatype == datatype
    answer = engine.predict({"x": x}, ())["y"]
    engine.close()
    assert answer.dtype == dtype
    assert answer.tobytes() == x.tobytes()


@pytest.mark.parametrize("module", ON_ONNX)
def test_datatype_that_it_cannot_give_is_refused_at_once(tmp_path: Path, module: Any) -> None:
    """onnxruntime's Python has no arrays of bfloat16: a model that wants them would fail each request."""
    path = crafted.save(tmp_path, crafted.identity(16, ["rows"]))
    with pytest.raises(RefusedModel, match=r"'x'.*bf(loat)?16"):
        module.load(crafted.package(path), 1)


@pytest.mark.parametrize("module", ON_ONNX)
@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07\x12\xff", crafted.plus_minus().SerializeToString()[:-9]])
def test_file_that_is_broken_is_refused_with_its_path(tmp_path: Path, module: Any, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(RefusedModel, match=r"model\.onnx"):
        module.load(crafted.package(path), 1)
    with pytest.raises(RefusedModel, match=r"gone\.onnx"):
        module.load(crafted.package(tmp_path / "gone.onnx"), 1)


@pytest.mark.parametrize("module", ON_ONNX)
def test_operator_that_is_unknown_is_refused(tmp_path: Path, module: Any) -> None:
    made = crafted.identity()
    made.graph.node[0].op_type = "Sluice"
    with pytest.raises(RefusedModel, match="Sluice"):
        module.load(crafted.package(crafted.save(tmp_path, made)), 1)


@pytest.mark.parametrize("module", ON_ONNX)
def test_data_shorter_than_its_tensor_is_refused(tmp_path: Path, module: Any) -> None:
    """`onnx_files.check` believes a length that is left out; the engine does the sum."""
    (tmp_path / "w").write_bytes(bytes(12))
    path = crafted.save(tmp_path, crafted.with_weights(crafted.pointing("w", length=None)))
    with pytest.raises(RefusedModel):
        module.load(crafted.package(path), 1)


@pytest.mark.parametrize("module", ON_ONNX)
def test_model_without_batch_dimension_is_not_batched(tmp_path: Path, module: Any) -> None:
    engine = module.load(crafted.package(crafted.save(tmp_path, crafted.plus_minus(3))), 1)
    assert engine.signature.inputs[0].shape == (3, 2)
    assert not engine.signature.batched
    same(engine.predict({"x": X}, ()), UP_DOWN)


@pytest.mark.parametrize("module", ON_ONNX)
def test_one_value_under_two_names_is_answered_under_both(tmp_path: Path, module: Any) -> None:
    from onnx import TensorProto, helper

    made = crafted.plus_minus()
    made.graph.node.append(helper.make_node("Identity", ["up"], ["again"]))
    made.graph.output.append(crafted.value("again", TensorProto.FLOAT, ["rows", 2]))
    engine = module.load(crafted.package(crafted.save(tmp_path, made)), 1)
    same(engine.predict({"x": X}, ()), UP_DOWN | {"again": X + 1})
    same(engine.predict({"x": X}, ("again", "up")), {"again": X + 1, "up": X + 1})


@pytest.mark.parametrize("module", ON_ONNX)
@pytest.mark.parametrize("threads", [1, 2])
def test_shape_that_the_model_cannot_take_is_the_caller_s_fault(tmp_path: Path, module: Any, threads: int) -> None:
    """Shapes that the signature lets pass, and that do not meet inside.

    With one thread OpenVINO's `infer` raises nothing then, and what comes out is the answer to the caller before.
    """
    from onnx import TensorProto, helper

    made = crafted.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [crafted.value("x", TensorProto.FLOAT, ["r", "c"]), crafted.value("w", TensorProto.FLOAT, ["r", "c"])],
        [crafted.value("y", TensorProto.FLOAT, ["r", "c"])],
    )
    engine = module.load(crafted.package(crafted.save(tmp_path, made)), threads)
    square = np.eye(2, dtype=np.float32)
    for _ in range(2):
        same(engine.predict({"x": square, "w": square}, ()), {"y": square})
        with pytest.raises(RefusedByEngine):
            engine.predict({"x": np.ones((2, 3), np.float32), "w": np.ones((2, 3), np.float32)}, ())
