from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

import crafted
from tidemill.core.errors import RefusedByEngine, RefusedModel
from tidemill.core.package import ModelConfig
from tidemill.engine import onnx
from tidemill.engine.onnx import OnnxEngine


def load(folder: Path, made: object) -> OnnxEngine:
    return onnx.load(crafted.package(crafted.save(folder, made)), 1)  # type: ignore[arg-type]


@pytest.fixture
def text(tmp_path: Path) -> OnnxEngine:
    return load(tmp_path, crafted.identity(TensorProto.STRING, ["rows", 2]))


def strings(*values: bytes) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = values
    return made.reshape(-1, 2)


def test_strings_are_bytes_there_and_back(text: OnnxEngine) -> None:
    x = strings(b"", b"plain", "naïve 潮汐 🌊".encode(), b"nul\0inside", b"nul at end\0", b" " * 100_000)
    (spec,) = text.signature.inputs
    assert spec.datatype == "BYTES"
    answer = text.predict({"x": x}, ())["y"]
    assert answer.dtype == object
    assert answer.flags.c_contiguous
    assert answer.tolist() == x.tolist()
    assert all(type(value) is bytes for value in answer.ravel())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_strings_keep_their_shape(text: OnnxEngine, count: int) -> None:
    x = strings(*[b"a"] * (2 * count)) if count else np.empty((0, 2), object)
    assert text.predict({"x": x}, ())["y"].shape == (count, 2)


@pytest.mark.parametrize("value", [b"\xff", b"\xed\xa0\x80", b"ok\xc3"])
def test_string_that_is_no_text_is_the_caller_s_fault(text: OnnxEngine, value: bytes) -> None:
    with pytest.raises(RefusedByEngine, match=r"'x'.*UTF-8"):
        text.predict({"x": strings(b"a", value)}, ())
    assert text.predict({"x": strings(b"a", b"b")}, ())["y"].tolist() == [[b"a", b"b"]]


def test_strings_and_numbers_mix(tmp_path: Path) -> None:
    made = crafted.model(
        [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Neg", ["x"], ["y"])],
        [crafted.value("s", TensorProto.STRING, ["rows"]), crafted.value("x", TensorProto.FLOAT, ["rows"])],
        [crafted.value("y", TensorProto.FLOAT, ["rows"]), crafted.value("t", TensorProto.STRING, ["rows"])],
    )
    engine = load(tmp_path, made)
    inputs = {"x": np.array([1.0], np.float32), "s": np.array([b"a"], object)}
    assert engine.predict(inputs, ("t",))["t"].tolist() == [b"a"]
    answer = engine.predict(inputs, ())
    assert (list(answer), answer["y"].tolist(), answer["t"].tolist()) == (["y", "t"], [-1.0], [b"a"])


def test_unknown_rank_takes_any_rank_and_is_no_batch(tmp_path: Path) -> None:
    made = crafted.model(
        [helper.make_node("Abs", ["x"], ["y"])],
        [crafted.value("x", TensorProto.FLOAT, crafted.FREE)],
        [crafted.value("y", TensorProto.FLOAT, crafted.FREE)],
    )
    engine = load(tmp_path, made)
    assert [spec.shape for spec in engine.signature.inputs + engine.signature.outputs] == [None, None]
    assert not engine.signature.batched
    for shape in ((), (3,), (1, 2, 3), (0,)):
        x = np.full(shape, -2, np.float32)
        assert np.array_equal(engine.predict({"x": x}, ())["y"], -x)


def test_scalar_is_not_taken_for_unknown_rank(tmp_path: Path) -> None:
    engine = load(tmp_path, crafted.identity(shape=[]))
    assert engine.signature.inputs[0].shape == ()
    answer = engine.predict({"x": np.array(3, np.float32)}, ())["y"]
    assert isinstance(answer, np.ndarray)
    assert answer.shape == ()


def test_value_that_the_model_cannot_take_is_the_caller_s_fault_and_leaves_no_trace(tmp_path: Path) -> None:
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    made = crafted.model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [crafted.value("i", TensorProto.INT64, ["rows"])],
        [crafted.value("y", TensorProto.FLOAT, ["rows"])],
        [table],
    )
    engine = load(tmp_path, made)
    with pytest.raises(RefusedByEngine, match="out of data bounds") as caught:
        engine.predict({"i": np.array([99])}, ())
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500
    assert engine.predict({"i": np.array([2])}, ())["y"].tolist() == [3.0]


def test_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    made = crafted.model(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [crafted.value("x", TensorProto.FLOAT, ["rows"])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    with pytest.raises(RefusedModel, match=r"'y'.*seq"):
        load(tmp_path, made)


def test_data_beside_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    engine = load(tmp_path, crafted.with_weights(crafted.pointing("w")))
    assert engine.predict({"x": np.zeros((1, 4), np.float32)}, ())["y"].tolist() == [[1, 2, 3, 4]]


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = load(tmp_path, crafted.plus_minus())
    with pytest.raises(RefusedByEngine):
        engine.predict({"x": np.zeros((1, 9), np.float32)}, ())
    assert capfd.readouterr() == ("", "")


def test_providers_are_named_shortly_or_whole_and_the_cpu_is_the_last() -> None:
    assert onnx.providers(()) == ["CPUExecutionProvider"]
    assert onnx.providers(["CPU"]) == onnx.providers(["CPUExecutionProvider"]) == ["CPUExecutionProvider"]


def test_a_provider_that_is_not_there_refuses_the_model_and_says_what_to_install(tmp_path: Path) -> None:
    path = crafted.save(tmp_path, crafted.plus_minus())
    package = crafted.package(path)
    wanted = msgspec.structs.replace(package, config=ModelConfig(providers=("rocm9", "cpu")))
    with pytest.raises(RefusedModel, match=r"no provider 'rocm9' here, it has .*cpu"):
        onnx.load(wanted, 1)


def test_a_provider_that_did_not_start_refuses_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where onnxruntime has been built with CUDA and finds no library of it: it takes the CPU and says nothing."""
    package = crafted.package(crafted.save(tmp_path, crafted.plus_minus()))
    wanted = msgspec.structs.replace(package, config=ModelConfig(providers=("cuda",)))
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnx.ort, "get_available_providers", lambda: both)
    alone = onnx.ort.InferenceSession

    def silent(path: str, options: Any, providers: list[str]) -> Any:
        assert providers == both
        return alone(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnx.ort, "InferenceSession", silent)
    with pytest.raises(RefusedModel, match="provider 'cuda' did not start: its libraries"):
        onnx.load(wanted, 1)
