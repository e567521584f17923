"""The clients that people have, unchanged, against a real server: TensorFlow Serving's and Triton's over gRPC."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

import needs
from kit.test_magika_features import FILES
from serving import Server
from tidemill.kit import magika_features
from tidemill.kit.install import install

triton = pytest.importorskip("tritonclient.grpc")

AT_ONCE = 64
TENSORFLOW_SERVING_CLIENT = """
import sys
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

request = predict_pb2.PredictRequest()
request.model_spec.name = 'half'
request.inputs['input'].CopyFrom(tf.make_tensor_proto([1.0]))
result = stub.Predict(request, timeout=10.0)
print(list(result.outputs['output'].float_val), tf.make_ndarray(result.outputs['output']).tolist())
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("models")
    install(["half", "magika"], into)
    return into


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(models, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as running:
        yield running


@pytest.mark.slow
def test_the_tensorflow_serving_client_halves_one(server: Server) -> None:
    python = needs.tensorflow_python()
    command = [python, "-c", TENSORFLOW_SERVING_CLIENT, server.told["grpc_address"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["[0.5] [0.5]"], done.stderr[-2000:]


@pytest.mark.slow
def test_triton_requests_at_once_are_batched(server: Server, models: Path) -> None:
    names = magika_features.labels(models / "magika/1")
    kinds = [list(FILES)[number % len(FILES)] for number in range(AT_ONCE)]
    count, rows = (f'tidemill_batch_rows_{each}{{model="magika",version="1"}}' for each in ("count", "sum"))
    before = server.metrics()
    together = Barrier(AT_ONCE)
    found: dict[int, str] = {}
    with triton.InferenceServerClient(server.told["grpc_address"]) as client:

        def ask(number: int) -> None:
            features = magika_features.features(FILES[kinds[number]])[np.newaxis]
            asked = triton.InferInput("bytes", [1, 2048], "INT32")
            asked.set_data_from_numpy(features)
            together.wait(30)
            answer = client.infer("magika", [asked]).as_numpy("target_label")[0]
            found[number] = magika_features.answer(answer, names)[0]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    after = server.metrics()
    assert [found[number] for number in range(AT_ONCE)] == kinds
    assert after[rows] - before[rows] == AT_ONCE
    assert after[count] - before[count] < AT_ONCE / 2


def test_triton_health_and_metadata(server: Server) -> None:
    with triton.InferenceServerClient(server.told["grpc_address"]) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("magika", "1")
        assert client.get_model_metadata("magika").inputs[0].shape == [-1, 2048]
