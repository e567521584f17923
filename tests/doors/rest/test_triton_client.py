"""Triton's own HTTP client, as it comes, against this server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from kit.test_magika_features import FILES
from serving import Server
from tidemill.core.tensor import DTYPES, Array
from tidemill.kit import magika_features

triton = pytest.importorskip("tritonclient.http")

AT_ONCE = 64


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as made:
        yield made


def given(name: str, array: Array, datatype: str, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("half")
    assert client.is_model_ready("half", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "tidemill"
    assert [each["name"] for each in client.get_model_metadata("two")["inputs"]] == ["a", "b", "count"]


EVERY_WAY = [
    (datatype, binary_in, binary_out)
    for datatype in DTYPES
    for binary_in in (True, False)
    for binary_out in (True, False)
    # The client itself knows no BF16, and sends half precision in bytes only.
    if datatype != "BF16" and (datatype != "FP16" or (binary_in and binary_out))
]


@pytest.mark.parametrize(("datatype", "binary_in", "binary_out"), EVERY_WAY)
def test_every_datatype_there_and_back(
    client: triton.InferenceServerClient, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    array = (
        np.array([["tide", "Mühle"]], object) if datatype == "BYTES" else np.array([[1, 0, 1]]).astype(DTYPES[datatype])
    )
    outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    answer = client.infer(
        f"echo-{datatype.lower()}", [given("x", array, datatype, binary_in)], outputs=outputs, request_id="7"
    )
    found = answer.as_numpy("y")
    if datatype == "BYTES":
        found = np.array([[each.decode() if isinstance(each, bytes) else each for each in found[0]]], object)
    assert found.tolist() == array.tolist()
    assert answer.get_response()["id"] == "7"


def test_several_inputs_and_one_requested_output(client: triton.InferenceServerClient) -> None:
    inputs = [
        given("a", np.ones((2, 3), np.float32), "FP32"),
        given("b", np.ones((2, 3), np.float32), "FP32", binary=False),
        given("count", np.array([[4], [5]]), "INT64"),
    ]
    answer = client.infer("two", inputs, outputs=[triton.InferRequestedOutput("twice")])
    assert answer.as_numpy("twice").tolist() == [[8], [10]]
    assert answer.as_numpy("sum") is None


def test_refusal_reaches_the_caller_in_words(client: triton.InferenceServerClient) -> None:
    with pytest.raises(triton.InferenceServerException, match="there is no model 'nobody'"):
        client.infer("nobody", [given("x", np.zeros(1, np.float32), "FP32")])
    with pytest.raises(triton.InferenceServerException, match=r"has shape \[1, 3\], expected \[2, 3\]"):
        client.infer("fixed", [given("x", np.zeros((1, 3), np.float32), "FP32")])


@pytest.mark.slow
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_requests_at_once_are_batched(real_server: Server, kit: Path, binary: bool) -> None:
    """64 at once, each its own file; what each gets is its own answer, and the engine ran far fewer times."""
    names = magika_features.labels(kit / "magika/1")
    kinds = [list(FILES)[number % len(FILES)] for number in range(AT_ONCE)]
    count, rows = (f'tidemill_batch_rows_{each}{{model="magika",version="1"}}' for each in ("count", "sum"))
    before = real_server.metrics()
    together = Barrier(AT_ONCE)

    def asked(kind: str) -> str:
        """The client belongs to its thread, as it wants."""
        features = magika_features.features(FILES[kind])[np.newaxis]
        with triton.InferenceServerClient(real_server.url.removeprefix("http://")) as client:
            together.wait(30)
            answer = client.infer("magika", [given("bytes", features, "INT32", binary)])
        return magika_features.answer(answer.as_numpy("target_label")[0], names)[0]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert list(threads.map(asked, kinds)) == kinds
    after = real_server.metrics()
    assert after[rows] - before[rows] == AT_ONCE
    assert after[count] - before[count] < AT_ONCE / 2
