"""Bounds on what one request may bring, at both doors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from serving import Server, eventually, post, quiet_after
from tidemill.core.schemas import message

VALUES_MAX = 1000
MIB = 2**20
INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def narrow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--no-auth", "--no-charge", "--values-max", str(VALUES_MAX), "--header-bytes-max", "4096")
    flags += ("--body-bytes-max", str(20 * MIB), "--connections-max", "20")
    with Server(repository, tmp_path_factory.mktemp("data"), *flags) as running:
        yield running


def refused(answer: httpx.Response, code: str) -> str:
    assert answer.json()["code"] == code, answer.text
    return str(answer.json()["error"])


# -- values ------------------------------------------------------------------------------------------------------------


def test_as_many_values_as_are_allowed_are_answered(narrow: Server) -> None:
    assert len(narrow.predict("half", {"instances": [1.5] * VALUES_MAX}).json()["predictions"]) == VALUES_MAX
    flat = {"name": "input", "datatype": "FP32", "shape": [VALUES_MAX], "data": [0.5] * VALUES_MAX}
    assert narrow.infer("half", {"inputs": [flat]}).status_code == 200


@pytest.mark.parametrize("count", [VALUES_MAX + 1, VALUES_MAX * 100])
def test_more_values_are_refused_over_rest(narrow: Server, count: int) -> None:
    with quiet_after(narrow):
        answer = narrow.predict("half", {"instances": [1.5] * count})
        assert answer.status_code == 413
        assert str(VALUES_MAX) in refused(answer, "request.too_large")
        flat = {"name": "input", "datatype": "FP32", "shape": [count], "data": [0.5] * count}
        refused(narrow.infer("half", {"inputs": [flat]}), "request.too_large")


def test_more_values_as_bytes_are_refused_over_rest(narrow: Server) -> None:
    data = np.zeros(VALUES_MAX + 1, np.float32).tobytes()
    tensor = {"name": "input", "datatype": "FP32", "shape": [VALUES_MAX + 1]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}).encode()
    answer = narrow.client.post(
        "/v2/models/half/infer",
        content=head + data,
        headers={"inference-header-content-length": str(len(head))},
    )
    refused(answer, "request.too_large")


def test_a_million_empty_lists_are_refused_before_they_are_made(narrow: Server) -> None:
    body = b'{"instances": [' + b"[]," * (6 * MIB) + b"[]]}"
    before = narrow.metrics()["tidemill_process_resident_bytes"]
    with quiet_after(narrow):
        refused(narrow.predict("half", body), "request.too_large")
    assert narrow.metrics()["tidemill_process_resident_bytes"] - before < 100 * MIB


@pytest.mark.parametrize("filled", [False, True], ids=["sent", "filled from one"])
def test_more_values_are_refused_over_grpc(narrow: Server, filled: bool) -> None:
    """A TensorProto of one value may stand for any number of them."""
    count = VALUES_MAX + 1
    request = message("tensorflow.serving.PredictRequest")(model_spec={"name": "half"})
    request.inputs["input"].dtype = 1
    request.inputs["input"].tensor_shape.dim.add(size=count)
    request.inputs["input"].float_val.extend([1.0] * (1 if filled else count))
    other = message("inference.ModelInferRequest")(
        model_name="half",
        inputs=[{"name": "input", "datatype": "FP32", "shape": [count]}],
        raw_input_contents=[np.zeros(count, np.float32).tobytes()],
    )
    with grpc.insecure_channel(narrow.told["grpc_address"]) as channel:
        for method, body in ((PREDICT, request), (INFER, other)):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(body.SerializeToString(), timeout=20)
            error: grpc.Call = caught.value
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(error.trailing_metadata())["tidemill-code"] == "request.too_large"


# -- depth and pieces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/models/half:predict", "/v1/models/half:classify", "/v2/models/half/infer"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * (10 * MIB),
        b'{"a":' * (2 * MIB),
        b'{"inputs":' + b"[" * (10 * MIB),
        b'{"inputs":[{"name":"x","shape":' + b"[" * MIB,
    ],
    ids=["lists", "objects", "inputs", "shape"],
)
def test_ten_megabytes_of_depth_are_refused_at_once(narrow: Server, path: str, body: bytes) -> None:
    with quiet_after(narrow):
        started = time.monotonic()
        answer = narrow.client.post(path, content=body)
        assert answer.status_code in (400, 413), answer.text
        assert time.monotonic() - started < 5


def test_a_hundred_thousand_chunks_of_one_byte_are_one_body(narrow: Server) -> None:
    body = b'{"instances": [4.0]}' + b" " * 100_000
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with quiet_after(narrow), narrow.connect() as wire:
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        assert json.loads(wire.ask(head + chunks).body) == {"predictions": [2.0]}


def test_a_connection_with_a_thousand_requests_keeps_nothing(narrow: Server) -> None:
    with quiet_after(narrow), narrow.connect() as wire:
        for _ in range(1000):
            assert wire.ask(post("/v1/models/half:predict", b'{"instances":[4.0]}')).status == 200


# -- gRPC's own --------------------------------------------------------------------------------------------------------


def call(narrow: Server, body: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.StatusCode:
    with grpc.insecure_channel(narrow.told["grpc_address"]) as channel:
        try:
            channel.unary_unary(INFER)(body, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def test_a_message_beyond_the_bytes_allowed_is_refused_over_grpc(narrow: Server) -> None:
    with quiet_after(narrow):
        assert call(narrow, b"\0" * (20 * MIB + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_beyond_the_bytes_allowed_is_refused_over_grpc(narrow: Server) -> None:
    with quiet_after(narrow):
        assert call(narrow, b"", (("x-pad", "p" * 5000),)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def slow(server: Server, steps: int) -> tuple[grpc.Channel, grpc.Future]:
    """A call under way that takes as long as its steps."""
    (given,) = server.client.get("/v2/models/slow").json()["inputs"]
    request = message("inference.ModelInferRequest")(
        model_name="slow",
        inputs=[{"name": given["name"], "datatype": given["datatype"], "shape": given["shape"]}],
        raw_input_contents=[np.array(steps, np.int64).tobytes()],
    )
    channel = grpc.insecure_channel(server.told["grpc_address"])
    running = channel.unary_unary(INFER).future(request.SerializeToString(), timeout=30)
    eventually(lambda: server.in_flight == 1, "it runs")
    return channel, running


def test_grpc_clients_that_vanish_leave_nothing_behind(narrow: Server) -> None:
    for _ in range(3):
        with quiet_after(narrow):
            slow(narrow, 4000)[0].close()


@pytest.mark.slow
def test_draining_answers_the_grpc_calls_that_run(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "slow", "--no-auth", "--no-charge", "--drain-ms", "8000") as server:
        channel, running = slow(server, 5000)
        server.process.terminate()
        eventually(lambda: '"draining"' in server.stderr(), "it drains")
        assert running.result()
        channel.close()
        assert server.ended() == 0


@pytest.mark.slow
def test_the_end_comes_within_the_time_stated_though_a_grpc_call_runs_on(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "slow", "--no-auth", "--no-charge", "--drain-ms", "300") as server:
        channel, running = slow(server, 20_000)
        started = time.monotonic()
        server.process.terminate()
        with pytest.raises(grpc.RpcError):
            running.result()
        assert server.ended() == 0
        assert time.monotonic() - started < 8
        channel.close()
