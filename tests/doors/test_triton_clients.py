"""Triton's own clients, as they come, against a real server: HTTP and gRPC, plain and asyncio, streams and control."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from serving import Server
from small_models import echo, lay_out
from tidemill.core.tensor import Array

http = pytest.importorskip("tritonclient.http")
http_aio = pytest.importorskip("tritonclient.http.aio")
grpc = pytest.importorskip("tritonclient.grpc")
grpc_aio = pytest.importorskip("tritonclient.grpc.aio")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

KINDS = {"http": http, "grpc": grpc}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = lay_out(tmp_path_factory.mktemp("triton"))
    toml = echo(folder, "labelled", "FP32") / "tidemill.toml"
    toml.write_text('labels = ["apple", "pear", "plum"]\n' + toml.read_text())
    return folder


@pytest.fixture(scope="module")
def running(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(models, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as made:
        yield made


def place(running: Server, kind: str) -> str:
    return str(running.told["grpc_address"]) if kind == "grpc" else running.url.removeprefix("http://")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(running: Server, kind: str) -> Iterator[Any]:
    with KINDS[kind].InferenceServerClient(place(running, kind)) as made:
        yield made


def given(module: Any, array: Array, datatype: str, name: str = "x") -> Any:
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def plain(told: Any) -> Any:
    """What a control call gave as plain values, over either wire."""
    if isinstance(told, dict | list):
        return told
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(told, preserving_proto_field_name=True)


HALVES = {"FP16": np.float16, "BF16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("datatype", HALVES)
def test_half_precision_there_and_back(client: Any, kind: str, datatype: str) -> None:
    array = np.array([[1.5, -2.0, np.inf]], HALVES[datatype])
    answer = client.infer(f"echo-{datatype.lower()}", [given(KINDS[kind], array, datatype)])
    found = answer.as_numpy("y")
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


def test_strings_there_and_back(client: Any, kind: str) -> None:
    array = np.array([["tide", "Mühle", ""]], object)
    answer = client.infer("echo-bytes", [given(KINDS[kind], array, "BYTES")])
    assert answer.as_numpy("y").tolist() == [[each.encode() for each in array[0]]]


def test_the_largest_values_with_their_labels(client: Any, kind: str) -> None:
    array = np.array([[0.25, 0.5, 0.125], [3, 1, 2]], np.float32)
    wanted = KINDS[kind].InferRequestedOutput("y", class_count=2)
    answer = client.infer("labelled", [given(KINDS[kind], array, "FP32")], outputs=[wanted])
    assert answer.as_numpy("y").tolist() == [
        [b"0.500000:1:pear", b"0.250000:0:apple"],
        [b"3.000000:0:apple", b"2.000000:2:plum"],
    ]


def test_asynchronous_calls_are_each_answered(client: Any, kind: str) -> None:
    arrays = [np.full((1, 2), number, np.float32) for number in range(20)]
    if kind == "http":
        waiting = [client.async_infer("echo-fp32", [given(http, array, "FP32")]) for array in arrays]
        found = [each.get_result() for each in waiting]
    else:
        answers: queue.Queue[Any] = queue.Queue()

        def heard(result: Any, error: Any) -> None:
            answers.put(error or result)

        for number, array in enumerate(arrays):
            client.async_infer("echo-fp32", [given(grpc, array, "FP32")], heard, request_id=str(number))
        found = sorted((answers.get(timeout=20) for _ in arrays), key=lambda each: int(each.get_response().id))
    assert [each.as_numpy("y").tolist() for each in found] == [array.tolist() for array in arrays]


@pytest.fixture
async def aio(running: Server, kind: str) -> AsyncIterator[Any]:
    module = {"http": http_aio, "grpc": grpc_aio}[kind]
    async with module.InferenceServerClient(place(running, kind)) as made:
        yield made


async def test_the_asyncio_clients_are_served(aio: Any, kind: str) -> None:
    arrays = [np.full((1, 2), number, np.float32) for number in range(10)]
    asked = [aio.infer("echo-fp32", [given(KINDS[kind], array, "FP32")]) for array in arrays]
    found = await asyncio.gather(*asked)
    assert [each.as_numpy("y").tolist() for each in found] == [array.tolist() for array in arrays]
    assert await aio.is_model_ready("half")
    assert plain(await aio.get_inference_statistics("half"))["model_stats"][0]["name"] == "half"
    assert (await aio.get_server_metadata()) is not None


def test_a_stream_answers_in_order_and_outlives_an_error(running: Server) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with grpc.InferenceServerClient(place(running, "grpc")) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(30):
            model = "nobody" if number == 7 else "echo-int64"
            array = np.array([[number]], np.int64)
            client.async_stream_infer(
                model, [given(grpc, array, "INT64")], request_id=str(number), enable_empty_final_response=True
            )
        told = [answers.get(timeout=20) for _ in range(30)]
        client.stop_stream()
        assert answers.empty()
        client.start_stream(lambda result, error: answers.put((result, error)))  # the client goes on with another
        client.async_stream_infer("echo-int64", [given(grpc, np.array([[5]]), "INT64")])
        assert answers.get(timeout=20)[1] is None
    assert "there is no model 'nobody'" in told[7][1].message()
    for number, (result, _) in enumerate(told):
        if number != 7:
            response = result.get_response()
            assert (response.id, result.as_numpy("y").tolist()) == (str(number), [[number]])
            assert response.parameters["triton_final_response"].bool_param


async def test_an_asyncio_stream(running: Server) -> None:
    async def questions() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            array = np.array([[number]], np.int64)
            yield {"model_name": "echo-int64", "inputs": [given(grpc, array, "INT64")], "request_id": str(number)}

    async with grpc_aio.InferenceServerClient(place(running, "grpc")) as client:
        found = [result async for result, error in client.stream_infer(questions()) if error is None]
    assert [each.as_numpy("y").tolist() for each in found] == [[[number]] for number in range(10)]


def test_statistics_count_what_was_asked(client: Any, kind: str) -> None:
    def told() -> dict[str, Any]:
        return dict(plain(client.get_inference_statistics("echo-uint8", "1"))["model_stats"][0])

    before = told()
    array = np.zeros((3, 1), np.uint8)
    for _ in range(2):
        client.infer("echo-uint8", [given(KINDS[kind], array, "UINT8")])
    after = told()
    assert int(after["inference_count"]) - int(before.get("inference_count", 0)) == 6
    assert int(after["execution_count"]) - int(before.get("execution_count", 0)) == 2
    success = [int(each["inference_stats"]["success"].get("count", 0)) for each in (before, after)]
    assert success[1] - success[0] == 2
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    stats = after["inference_stats"]
    assert all(int(stats[part]["count"]) == success[1] for part in parts)
    spent_ns = sum(int(stats[part].get("ns", 0)) for part in parts)
    assert 0 < spent_ns <= int(stats["success"]["ns"]) < 1_000_000_000 * success[1]
    assert any(int(each["batch_size"]) == 3 for each in after["batch_stats"])
    everything = plain(client.get_inference_statistics())["model_stats"]
    assert {"half", "two"} <= {each["name"] for each in everything}


def config_of(client: Any, model: str) -> dict[str, Any]:
    told = plain(client.get_model_config(model))
    return dict(told.get("config", told))


def state_of(client: Any, model: str) -> str:
    told = plain(client.get_model_repository_index())
    (entry,) = [each for each in (told["models"] if isinstance(told, dict) else told) if each["name"] == model]
    return str(entry["state"])


def test_models_are_unloaded_and_loaded_again(client: Any, kind: str) -> None:
    assert state_of(client, "fixed") == "READY"
    client.unload_model("fixed")
    assert not client.is_model_ready("fixed")
    assert state_of(client, "fixed") == "UNAVAILABLE"
    with pytest.raises(InferenceServerException):
        client.infer("fixed", [given(KINDS[kind], np.zeros((2, 3), np.float32), "FP32")])
    client.load_model("fixed")
    assert client.is_model_ready("fixed")
    assert state_of(client, "fixed") == "READY"


def test_a_configuration_is_read_changed_and_loaded(client: Any) -> None:
    config = config_of(client, "two")
    assert (config["max_batch_size"], config["version_policy"]) == (64, {"latest": {"num_versions": 1}})
    config["max_batch_size"] = 16
    client.load_model("two", config=json.dumps(config))
    assert config_of(client, "two")["max_batch_size"] == 16
    client.load_model("two", config=json.dumps({"max_batch_size": 0}))
    assert int(config_of(client, "two").get("max_batch_size", 0)) == 0
    client.load_model("two")
    assert config_of(client, "two")["max_batch_size"] == 64


def test_a_model_is_loaded_with_as_many_instances_as_asked_for(client: Any) -> None:
    client.load_model("slow", config=json.dumps({"instance_group": [{"count": 2}, {"count": 1, "kind": "KIND_CPU"}]}))
    assert config_of(client, "slow")["instance_group"][0]["count"] == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"max_batch_size": 8}, "dimension 0 of x FP32"),
        ({"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [2, 3]}]}, "'z'"),
        ({"sequence_batching": {"max_sequence_idle_microseconds": 5}}, "sequence_batching"),
        ({"backend": "tensorrt"}, "tensorrt"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_leaves_the_model_as_it_was(
    client: Any, kind: str, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words):
        client.load_model("fixed", config=json.dumps(config))
    client.infer("fixed", [given(KINDS[kind], np.zeros((2, 3), np.float32), "FP32")])


def test_files_are_refused(running: Server) -> None:
    with (
        grpc.InferenceServerClient(place(running, "grpc")) as client,
        pytest.raises(InferenceServerException, match="files are not taken over the wire"),
    ):
        client.load_model("fixed", config="{}", files={"file:1/model.onnx": b"x"})
    body = {"parameters": {"config": "{}", "file:1/model.onnx": "eA=="}}
    answer = running.client.post("/v2/repository/models/fixed/load", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.not_offered")


def test_what_is_not_offered_is_refused(client: Any) -> None:
    for ask in (
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.get_trace_settings,
        client.get_log_settings,
    ):
        with pytest.raises(InferenceServerException, match=r"not served|cannot be set"):
            ask()


def test_a_body_of_control_that_is_no_object_is_malformed(running: Server) -> None:
    for path in ("/v2/repository/index", "/v2/repository/models/fixed/load", "/v2/repository/models/fixed/unload"):
        for body in (b"[]", b"{", b'"x"'):
            answer = running.client.post(path, content=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")
    for body in ({"ready": 1}, {"ready": "yes"}):
        assert running.client.post("/v2/repository/index", json=body).status_code == 400
    answer = running.client.post("/v2/repository/models/fixed/load", json={"parameters": [1]})
    assert answer.status_code == 400
    assert running.client.post("/v2/repository/index", json={"ready": True}).json()[0]["state"] == "READY"
    assert running.client.post("/v2/repository/models/nobody/load").status_code == 404
