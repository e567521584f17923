"""One port for REST and gRPC: the real server, real clients."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import needs
from serving import START_S_MAX, Server, environment, eventually
from tidemill.core.schemas import message
from tidemill.doors.relay import PREFACE, speaks_http2
from tidemill.kit.install import install

PREDICT = "/tensorflow.serving.PredictionService/Predict"
DT_FLOAT = 1

# The founding example's client, as it is printed there.
PRINTED_CLIENT = """
import sys
import grpc, tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

channel = grpc.insecure_channel('localhost:' + sys.argv[1])
stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

request = predict_pb2.PredictRequest()
request.model_spec.name ='my_model'
request.inputs['input'].CopyFrom(tf.make_tensor_proto([1.0]))
result = stub.Predict(request, timeout=10.0)
print(list(result.outputs['output'].float_val))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("models")
    install(["half"], into)
    return into


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(models, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as running:
        yield running


def predict(channel: grpc.Channel, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], name: str) -> list[float]:
    request = message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = name
    tensor = request.inputs["input"]
    tensor.dtype = DT_FLOAT
    tensor.tensor_shape.dim.add(size=values.size)
    tensor.tensor_content = values.tobytes()
    answer = channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=20)
    output = message("tensorflow.serving.PredictResponse").FromString(answer).outputs["output"]
    return list(output.float_val) or np.frombuffer(output.tensor_content, np.float32).tolist()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def unbounded(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])


def test_both_are_answered_on_one_port_again_and_again(server: Server) -> None:
    for value in range(20):
        with unbounded(server.address[1]) as channel:
            assert predict(channel, np.array([value], np.float32), "half") == [value / 2]
        answer = httpx.post(f"{server.url}/v1/models/half:predict", json={"instances": [value]})
        assert answer.json() == {"predictions": [value / 2]}


def test_a_large_message_goes_through_both_ways(server: Server) -> None:
    values = np.arange(2**21, dtype=np.float32)
    with unbounded(server.address[1]) as channel:
        assert predict(channel, values, "half") == (values / 2).tolist()


def test_a_vanished_client_leaves_nothing_behind(server: Server) -> None:
    before = server.metrics()["tidemill_connections"]
    held = [socket.create_connection(server.address) for _ in range(20)]
    for each in held:
        each.sendall(PREFACE + b"\r\n\r\nSM\r\n\r\n")
    eventually(lambda: server.metrics()["tidemill_connections"] >= before + 20, "20 connections")
    for each in held:
        each.close()
    eventually(lambda: server.metrics()["tidemill_connections"] <= before, "none of them")


@given(st.binary(max_size=40))
def test_no_http1_request_is_taken_for_http2(first: bytes) -> None:
    if speaks_http2(first):
        assert first.startswith(b"PRI ")
    assert not speaks_http2(b"POST " + first)
    assert not speaks_http2(b"PRINT " + first)


@pytest.mark.slow
def test_the_printed_start_line_answers_the_printed_client_and_curl(models: Path, tmp_path: Path) -> None:
    base = tmp_path / "models"
    base.mkdir()
    (base / "my_model").symlink_to(models / "half")
    rest, port = free_port(), free_port()
    line = [f"--rest_api_port={rest}", "--model_name=my_model", f"--model_base_path={base}"]
    command = [str(Path(sys.executable).with_name("tensorflow_model_server")), *line, f"--port={port}"]
    command.append(f"--data_dir={tmp_path / 'data'}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as popen:
        try:
            assert popen.stdout is not None
            said = iter(popen.stdout.readline, "")
            assert any(each.startswith("model ") for each in said)
            for number in (rest, port):
                client = [needs.tensorflow_python(), "-c", PRINTED_CLIENT, str(number)]
                done = subprocess.run(client, capture_output=True, text=True, timeout=START_S_MAX, check=False)
                assert done.stdout.splitlines()[-1:] == ["[0.5]"], done.stderr[-2000:]
                url = f"http://localhost:{number}/v1/models/my_model:predict"
                curl = ["curl", "-s", "-d", '{"instances": [1.0]}', url]
                assert subprocess.check_output(curl, text=True, timeout=START_S_MAX) == '{"predictions":[0.5]}'
        finally:
            popen.terminate()
            popen.wait(START_S_MAX)
