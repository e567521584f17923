"""TensorFlow Serving's file of warm-up requests, read as it is written and sent through the model before it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import small_models
from tidemill.assemble import fleet_policy
from tidemill.core import registry, schemas
from tidemill.core.contracts import WarmUpRequest
from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature, Tensors
from tidemill.deploy.local import LocalFleet, State
from tidemill.doors.tfserving import warm_up
from tidemill.doors.tfserving.results import CLASSIFY, REGRESS
from tidemill.engine import onnx
from tidemill.repository import layout
from tidemill.repository.tf_record import framed

BYTES_MAX = 2**20
A, B = [[1.0, 2.0], [3.0, 4.0]], [[0.5], [0.25]]
EXAMPLES = [{"a": A[0], "b": B[0]}, {"a": A[1], "b": B[1]}]


def tensor(values: Any) -> Any:
    array = np.array(values, np.float32)
    shape = {"dim": [{"size": side} for side in array.shape]}
    return {"dtype": 1, "tensor_shape": shape, "tensor_content": array.tobytes()}


def message(name: str, **fields: Any) -> Any:
    return schemas.message(f"tensorflow.serving.{name}")(**fields)


def prediction(signature: str = "", wanted: Sequence[str] = (), **inputs: Any) -> Any:
    made = message("PredictRequest", model_spec={"name": "of any", "signature_name": signature}, output_filter=wanted)
    for name, values in inputs.items():
        made.inputs[name].CopyFrom(schemas.message("tensorflow.TensorProto")(**tensor(values)))
    return made


def examples() -> Any:
    made = message("Input")
    for each in EXAMPLES:
        example = made.example_list.examples.add()
        for name, values in each.items():
            example.features.feature[name].float_list.value.extend(values)
    return made


def log(**kind: Any) -> bytes:
    return bytes(message("PredictionLog", **kind).SerializeToString())


def predicted(*asked: Any, **more: Any) -> bytes:
    return log(predict_log={"request": prediction(*asked, **more)})


def write(version: Path, *records: bytes) -> Path:
    place = version / warm_up.FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"".join(map(framed, records)))
    return place


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """scores = a + b, outputs = b; `classes` for each row."""
    return small_models.save(tmp_path / "models", "named", small_models.named_kinds())


def packaged(version: Path) -> ModelPackage:
    return layout.package("named", 1, version)


def found(version: Path, times: int = 1, signature: Signature | None = None) -> list[WarmUpRequest]:
    package = packaged(version)
    return list(warm_up.requests(package, signature or onnx.load(package, 1).signature, BYTES_MAX, times))


def test_without_a_file_there_are_none(version: Path) -> None:
    assert found(version) == []


def test_each_kind_of_record_is_a_request_as_its_door_reads_it(version: Path) -> None:
    tasks = [{"model_spec": {"name": "m"}, "method_name": method} for method in (CLASSIFY, REGRESS)]
    write(
        version,
        predicted(a=A, b=B),
        predicted(wanted=["outputs"], a=A, b=B),
        log(classify_log={"request": message("ClassificationRequest", input=examples())}),
        log(regress_log={"request": message("RegressionRequest", input=examples())}),
        log(multi_inference_log={"request": message("MultiInferenceRequest", input=examples(), tasks=tasks)}),
        log(predict_streamed_log={"request": [prediction(a=A, b=B)] * 2}),
    )
    asked = found(version, 3)
    assert [each.work.outputs for each in asked] == [
        (), ("outputs",), ("classes", "scores"), ("outputs",), ("classes", "scores", "outputs"), (), (),
    ]  # fmt: skip
    for each in asked:
        assert each.work.inputs["a"].tolist() == A
        assert each.work.inputs["b"].tolist() == B
        assert (each.times, each.must) == (3, True)
    assert asked[5].where == asked[6].where == f"{warm_up.FILE}: record 6"


def test_records_for_a_signature_that_is_not_served_are_passed_over(
    version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(version, predicted("twice", x=[1]), predicted("mine", a=A, b=B), predicted(x=[1]))
    own = onnx.load(packaged(version), 1).signature
    served = msgspec.structs.replace(
        own, name="mine", left_out=(("serving_default", "it says so"), ("twice", "it is one too many"))
    )
    assert len(found(version, signature=served)) == 1
    assert "warm-up requests for signature 'twice', which is not served: 1" in caplog.text


def test_records_name_the_signature_that_they_are_for(version: Path) -> None:
    write(version, predicted("other", a=A, b=B), predicted("mine", a=A, b=B), predicted(a=A, b=B))
    own = msgspec.structs.replace(onnx.load(packaged(version), 1).signature, name="mine")
    usual = msgspec.structs.replace(own, name="serving_default")
    several = msgspec.structs.replace(own, further=(usual, msgspec.structs.replace(own, name="other")))
    assert [each.work.signature for each in found(version, signature=several)] == ["other", "", "serving_default"]


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (b"\xff\xff", "record 2 is no PredictionLog"),
        (b"", "record 2: it is 'nothing that is known here'; predict_log"),
        (log(session_run_log={}), "record 2: it is 'session_run_log'"),
        (predicted("gone", a=A, b=B), "record 2: there is no signature 'gone'"),
        (predicted(a=A), "record 2: input 'b' is missing"),
        (predicted(a=A, b=B, c=B), "record 2: there is no input 'c'"),
        (predicted(a=B, b=B), r"record 2: input 'a' has shape \[2, 1\]"),
        (predicted(wanted=["gone"], a=A, b=B), "record 2: there is no output 'gone'"),
        (log(classify_log={}), "record 2: the input is empty"),
        (log(multi_inference_log={}), "record 2: there are no tasks"),
    ],
)
def test_record_that_cannot_be_asked_is_named_with_the_reason(version: Path, record: bytes, match: str) -> None:
    write(version, predicted(a=A, b=B), record)
    with pytest.raises(RefusedModel, match=match):
        found(version)


def test_file_of_more_records_than_tensorflow_serving_takes_is_refused(version: Path) -> None:
    record = predicted(a=A, b=B)
    write(version, *[record] * warm_up.RECORDS_MAX)
    assert len(found(version)) == warm_up.RECORDS_MAX
    write(version, *[record] * (warm_up.RECORDS_MAX + 1))
    with pytest.raises(RefusedModel, match="more than 1000 records"):
        found(version)


def test_short_record_that_stands_for_a_long_tensor_is_refused(version: Path) -> None:
    long = prediction(b=B)
    long.inputs["a"].MergeFrom(schemas.message("tensorflow.TensorProto")(dtype=1, float_val=[1.0]))
    for side in (2**20, 2):
        long.inputs["a"].tensor_shape.dim.add(size=side)
    write(version, log(predict_log={"request": long}))
    with pytest.raises(RefusedModel, match="record 1: input 'a' has shape"):
        found(version)


# -- through the model -------------------------------------------------------------------------------------------------


class Seen:
    """An engine that remembers who asked it."""

    def __init__(self, engine: Any, asked: list[list[float]], number: int) -> None:
        self.engine, self.asked, self.number = engine, asked, number
        self.signature = engine.signature

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.asked.append([self.number, *inputs["a"].ravel().tolist()])
        answer: Tensors = self.engine.predict(inputs, outputs)
        return answer

    def fork(self) -> Seen:
        return Seen(self.engine.fork(), self.asked, self.number)

    def close(self) -> None:
        self.asked.append([-self.number])
        self.engine.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Number of the engine and `a` of each call; the number below 0 for an engine that was closed."""
    calls: list[list[float]] = []
    numbers = iter(range(1, 100))

    def load(package: ModelPackage, threads: int) -> Seen:
        return Seen(onnx.load(package, threads), calls, next(numbers))

    loading = registry.load
    monkeypatch.setattr(registry, "load", lambda name: load if name == "engine.onnx" else loading(name))
    return calls


@asynccontextmanager
async def fleet_of(**told: Any) -> AsyncIterator[LocalFleet]:
    made = LocalFleet(fleet_policy(Settings(**told)))
    yield made
    await made.close()


async def loaded(version: Path, **told: Any) -> tuple[State, str, int]:
    async with fleet_of(**told) as fleet:
        replica = await fleet.load(packaged(version))
        return replica.state, replica.reason, replica.warmed


async def test_records_go_through_each_loaded_engine_before_the_model_serves(
    version: Path, asked: list[list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(version, predicted(a=A, b=B), predicted(a=[[7.0, 8.0]], b=[[9.0]]))
    assert await loaded(version, instances=2, threads=2, warm_up_times=3) == (State.AVAILABLE, "", 2)
    flat = [1.0, 2.0, 3.0, 4.0]
    for engine in (1, 2):
        assert [each[1:] for each in asked if each[0] == engine and each[1:] in (flat, [7, 8])] == [flat] * 3 + [
            [7, 8]
        ] * 3
    assert "2 warm-up requests answered in" in caplog.text


async def test_model_without_warm_up_requests_or_told_to_skip_them_serves(version: Path) -> None:
    assert await loaded(version) == (State.AVAILABLE, "", 0)
    write(version, b"no log")
    assert await loaded(version, no_warm_up=True) == (State.AVAILABLE, "", 0)


async def test_damaged_file_fails_the_load_and_gives_the_engines_back(version: Path, asked: list[list[float]]) -> None:
    place = write(version, predicted(a=A, b=B), predicted(a=A, b=B))
    place.write_bytes(place.read_bytes()[:-1])
    state, reason, _ = await loaded(version)
    assert state is State.FAILED
    assert "record 2 is cut short" in reason
    assert [-1] in asked


async def test_record_that_the_model_itself_refuses_fails_the_load(tmp_path: Path) -> None:
    version = small_models.save(tmp_path, "named", small_models.poison())
    request = message("PredictRequest")
    proto = {"dtype": 9, "tensor_shape": {"dim": [{"size": 1}]}, "int64_val": [10**6]}
    request.inputs["x"].CopyFrom(schemas.message("tensorflow.TensorProto")(**proto))
    write(version, log(predict_log={"request": request}))
    state, reason, _ = await loaded(version)
    assert state is State.FAILED
    assert reason.startswith(f"{warm_up.FILE}: record 1: ")


async def test_new_version_that_fails_its_warm_up_leaves_the_old_one_serving(version: Path) -> None:
    second = small_models.save(version.parent.parent, "named", small_models.named_kinds(), 2)
    write(second, b"no log")
    async with fleet_of() as fleet:
        await fleet.load(packaged(version))
        failed = await fleet.load(layout.package("named", 2, second))
        assert failed.state is State.FAILED
        assert "record 1" in failed.reason
        assert fleet.find("named").version == 1


# -- beside TensorFlow -------------------------------------------------------------------------------------------------


def test_file_that_the_stock_packages_write_is_read(tensorflow_side: Callable[..., Any], version: Path) -> None:
    place = write(version)
    told = tensorflow_side("warm_up", path=str(place), model="named", tensors={"a": A, "b": B}, examples=EXAMPLES)
    asked = found(version)
    assert len(asked) == told["records"] == 4
    assert all(each.work.inputs["a"].tolist() == A and each.work.inputs["b"].tolist() == B for each in asked)


def test_tensorflow_reads_the_records_that_we_frame(tensorflow_side: Callable[..., Any], tmp_path: Path) -> None:
    given = [b"", b"tide", bytes(range(256)) * 300]
    place = write(tmp_path, *given)
    assert [bytes.fromhex(each) for each in tensorflow_side("records", path=str(place))["records"]] == given
