"""KServe V2 over REST, asked over the wire: JSON, and the binary tensor extension."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from serving import Server
from tidemill import __version__
from tidemill.core.tensor import DTYPES

NUMBERS = {name: dtype for name, dtype in DTYPES.items() if name != "BYTES"}


def given(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def ask_binary(
    server: Server, model: str, asked: dict[str, Any], tail: bytes, **headers: str
) -> tuple[dict[str, Any], bytes]:
    """(JSON of the answer, the bytes behind it)"""
    head = json.dumps(asked).encode()
    answer = server.infer(model, head + tail, **{"inference-header-content-length": str(len(head))} | headers)
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("inference-header-content-length")
    if length is None:
        return answer.json(), b""
    assert answer.headers["content-type"] == "application/octet-stream"
    return json.loads(answer.content[: int(length)]), answer.content[int(length) :]


TWO = [
    given("a", "FP32", [1, 3], [1, 2, 3]),
    given("b", "FP32", [1, 3], [[10, 10, 10]]),
    given("count", "INT64", [1, 1], [4]),
]


def test_json_answers_model_version_and_flat_data(server: Server) -> None:
    answer = server.infer("two", {"id": "a question", "inputs": TWO})
    assert answer.json() == {
        "model_name": "two",
        "model_version": "1",
        "id": "a question",
        "outputs": [given("sum", "FP32", [1, 3], [11, 12, 13]), given("twice", "INT64", [1, 1], [8])],
    }


def test_inputs_may_come_in_any_order(server: Server) -> None:
    assert server.infer("two", {"inputs": TWO[::-1]}).json()["outputs"][0]["data"] == [11, 12, 13]


def test_version_in_the_path(server: Server) -> None:
    answer = server.client.post("/v2/models/half/versions/1/infer", json={"inputs": [given("input", "FP32", [1], [1])]})
    assert answer.json()["outputs"] == [given("output", "FP32", [1], [0.5])]


def test_only_requested_outputs_are_answered(server: Server) -> None:
    answer = server.infer("two", {"inputs": TWO, "outputs": [{"name": "twice"}]})
    assert [each["name"] for each in answer.json()["outputs"]] == ["twice"]


def test_requested_outputs_come_in_the_order_asked(server: Server) -> None:
    answer = server.infer("two", {"inputs": TWO, "outputs": [{"name": "twice"}, {"name": "sum"}]})
    assert [each["name"] for each in answer.json()["outputs"]] == ["twice", "sum"]


def test_id_is_left_out_where_none_was_given(server: Server) -> None:
    assert "id" not in server.infer("two", {"inputs": TWO}).json()


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_comes_back_in_json(server: Server, datatype: str) -> None:
    data = [True, False] if datatype == "BOOL" else [1, 2]
    answer = server.infer(f"echo-{datatype.lower()}", {"inputs": [given("x", datatype, [1, 2], data)]})
    assert answer.json()["outputs"] == [given("y", datatype, [1, 2], data)]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_comes_back_bit_for_bit_in_bytes(server: Server, datatype: str) -> None:
    raw = bytes([1, 0, 1, 1, 0, 1]) if datatype == "BOOL" else bytes(range(6 * DTYPES[datatype].itemsize))
    asked = {
        "inputs": [binary("x", datatype, [2, 3], len(raw))],
        "parameters": {"binary_data_output": True},
    }
    told, tail = ask_binary(server, f"echo-{datatype.lower()}", asked, raw)
    assert told["outputs"] == [binary("y", datatype, [2, 3], len(raw))]
    assert tail == raw


def test_every_pattern_of_half_precision_survives(server: Server) -> None:
    """All 65536 of them, NaNs and infinities too, through the binary way and, by value, through JSON."""
    raw = np.arange(65536, dtype=np.uint16).tobytes()
    asked = {
        "inputs": [binary("x", "FP16", [1, 65536], len(raw))],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    _, tail = ask_binary(server, "echo-fp16", asked, raw)
    assert tail == raw
    shown, _ = ask_binary(server, "echo-fp16", {"inputs": asked["inputs"]}, raw)
    np.testing.assert_array_equal(np.array(shown["outputs"][0]["data"], np.float16), np.frombuffer(raw, np.float16))


STRINGS = [b"", b"tide", b"\x00\xff", "Mühle".encode(), b"x" * 5000]


def packed(strings: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in strings)


def test_strings_in_bytes(server: Server) -> None:
    raw = packed(STRINGS)
    asked = {"inputs": [binary("x", "BYTES", [1, 5], len(raw))], "parameters": {"binary_data_output": True}}
    told, tail = ask_binary(server, "echo-bytes", asked, raw)
    assert told["outputs"] == [binary("y", "BYTES", [1, 5], len(raw))]
    assert tail == raw


def test_strings_in_json(server: Server) -> None:
    texts = ["", "tide", "Mühle", "null", '"quoted"']
    answer = server.infer("echo-bytes", {"inputs": [given("x", "BYTES", [5, 1], texts)]})
    assert answer.json()["outputs"] == [given("y", "BYTES", [5, 1], texts)]


def test_no_strings_at_all(server: Server) -> None:
    answer = server.infer("echo-bytes", {"inputs": [given("x", "BYTES", [0, 3], [])]})
    assert answer.json()["outputs"] == [given("y", "BYTES", [0, 3], [])]


def test_json_and_bytes_may_be_mixed_both_ways(server: Server) -> None:
    raw = np.array([1, 2, 3], np.float32).tobytes()
    asked = {
        "inputs": [TWO[1], binary("a", "FP32", [1, 3], len(raw)), TWO[2]],
        "outputs": [{"name": "sum", "parameters": {"binary_data": True}}, {"name": "twice"}],
    }
    told, tail = ask_binary(server, "two", asked, raw)
    assert told["outputs"] == [binary("sum", "FP32", [1, 3], 12), given("twice", "INT64", [1, 1], [8])]
    assert np.frombuffer(tail, np.float32).tolist() == [11, 12, 13]


def test_two_binary_inputs_follow_each_other(server: Server) -> None:
    a, b = (np.full((2, 3), value, np.float32).tobytes() for value in (1.0, 2.0))
    count = np.array([[5], [6]]).tobytes()
    asked = {
        "inputs": [
            binary("b", "FP32", [2, 3], len(b)),
            binary("count", "INT64", [2, 1], len(count)),
            binary("a", "FP32", [2, 3], len(a)),
        ],
        "parameters": {"binary_data_output": True},
    }
    told, tail = ask_binary(server, "two", asked, b + count + a)
    assert [each["name"] for each in told["outputs"]] == ["sum", "twice"]
    assert tail == np.full((2, 3), 3.0, np.float32).tobytes() + np.array([[10], [12]]).tobytes()


def test_an_output_overrules_the_wish_for_all(server: Server) -> None:
    asked = {
        "inputs": TWO,
        "outputs": [{"name": "sum", "parameters": {"binary_data": False}}, {"name": "twice"}],
        "parameters": {"binary_data_output": True},
    }
    told, tail = ask_binary(server, "two", asked, b"")
    assert told["outputs"][0] == given("sum", "FP32", [1, 3], [11, 12, 13])
    assert tail == np.array([8]).tobytes()


def test_json_header_length_over_plain_json(server: Server) -> None:
    told, tail = ask_binary(server, "two", {"inputs": TWO}, b"")
    assert tail == b""
    assert told["outputs"][1]["data"] == [8]


def test_empty_tensor_of_no_bytes(server: Server) -> None:
    told, _ = ask_binary(server, "echo-fp32", {"inputs": [binary("x", "FP32", [0, 3], 0)]}, b"")
    assert told["outputs"] == [given("y", "FP32", [0, 3], [])]


def test_nan_and_infinity_in_json(server: Server) -> None:
    body = b'{"inputs":[{"name":"input","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}]}'
    assert '"data":[NaN,Infinity,-Infinity]' in server.infer("half", body).text


def test_nan_in_bytes_is_answered_as_nan_in_json(server: Server) -> None:
    raw = np.array([np.nan, 2.0], np.float32).tobytes()
    told, _ = ask_binary(server, "half", {"inputs": [binary("input", "FP32", [2], 8)]}, raw)
    assert str(told["outputs"][0]["data"]) == "[nan, 1.0]"


def test_server_metadata_and_health(server: Server) -> None:
    about = server.client.get("/v2").json()
    assert (about["name"], about["version"]) == ("tidemill", __version__)
    assert "binary_tensor_data" in about["extensions"]
    assert server.client.get("/v2/health/live").json() == {"live": True}
    assert server.client.get("/v2/health/ready").json() == {"ready": True, "reasons": []}
    assert server.client.get("/v2/models/half/ready").json() == {"name": "half", "ready": True}
    assert server.client.get("/v2/models/half/versions/1/ready").status_code == 200


def test_model_metadata(server: Server) -> None:
    for path in ("/v2/models/two", "/v2/models/two/versions/1"):
        told = server.client.get(path).json()
        assert (told["name"], told["versions"], told["platform"]) == ("two", ["1"], "onnxruntime_onnx")
        assert told["inputs"][2] == {"name": "count", "datatype": "INT64", "shape": [-1, 1]}
        assert [each["name"] for each in told["outputs"]] == ["sum", "twice"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/models/nobody", 404, "model.unknown"),
        ("GET", "/v2/models/nobody/ready", 404, "model.unknown"),
        ("GET", "/v2/models/half/versions/9", 404, "model.version_unknown"),
        ("GET", "/v2/models/half/versions/9/ready", 404, "model.version_unknown"),
        ("GET", "/v2/models/half/versions/one/ready", 404, "model.version_unknown"),
        ("POST", "/v2/models/nobody/infer", 404, "model.unknown"),
        ("POST", "/v2/models/half/versions/9/infer", 404, "model.version_unknown"),
        ("GET", "/v2/models/half/infer", 405, "request.method"),
        ("POST", "/v2/models/half", 405, "request.method"),
        ("POST", "/v2/models/half/generate", 400, "request.not_offered"),
        ("GET", "/v2/nothing", 404, "request.route"),
    ],
)
def test_refusals_have_one_shape_and_a_stable_code(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    answer = server.client.request(method, path, json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json().keys() - {"param"} == {"error", "code"}


def test_head_asks_as_get_does_without_a_body(server: Server) -> None:
    answer = server.client.head("/v2/health/ready")
    assert (answer.status_code, answer.content) == (200, b"")
