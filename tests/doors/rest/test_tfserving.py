"""TensorFlow Serving's REST dialect, asked over the wire."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from serving import Server
from tidemill.doors.tfserving.translate import TF_NAMES

ROWS = {"a": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "b": [[10.0, 10.0, 10.0], [20.0, 20.0, 20.0]], "count": [[1], [2]]}


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize("value", [1.0, 3, -2.5, 0])
def test_row_form_answers_a_row_for_each_instance(server: Server, value: float) -> None:
    answer = server.predict("half", {"instances": [value, 8.0]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"predictions": [value / 2, 4.0]}


def test_column_form_answers_under_outputs(server: Server) -> None:
    assert server.predict("half", {"inputs": [[1.0, 2.0]]}).json() == {"outputs": [[0.5, 1.0]]}


def test_column_form_takes_a_scalar(server: Server) -> None:
    assert server.predict("half", {"inputs": 3.0}).json() == {"outputs": 1.5}


def test_several_named_inputs_in_column_form(server: Server) -> None:
    told = server.predict("two", {"inputs": ROWS}).json()
    assert told == {"outputs": {"sum": [[11, 12, 13], [24, 25, 26]], "twice": [[2], [4]]}}


def test_several_named_inputs_in_row_form(server: Server) -> None:
    instances = [{name: column[row] for name, column in ROWS.items()} for row in range(2)]
    told = server.predict("two", {"instances": instances}).json()
    assert told == {"predictions": [{"sum": [11, 12, 13], "twice": [2]}, {"sum": [24, 25, 26], "twice": [4]}]}


def test_a_single_input_may_be_named(server: Server) -> None:
    assert server.predict("half", {"instances": [{"input": 2.0}]}).json() == {"predictions": [1.0]}
    assert server.predict("half", {"inputs": {"input": [2.0]}}).json() == {"outputs": [1.0]}


def test_default_signature_may_be_named(server: Server) -> None:
    for name in ("serving_default", ""):
        assert server.predict("half", {"signature_name": name, "instances": [2.0]}).json() == {"predictions": [1.0]}


def test_unknown_fields_are_left_alone(server: Server) -> None:
    assert server.predict("half", {"instances": [2.0], "context": {"trace": 1}}).status_code == 200


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_strings_are_text_or_b64(server: Server, form: str) -> None:
    answer = server.predict("text", {form: ["tide", b64("Mühle".encode()), ""]})
    assert next(iter(answer.json().values())) == ["tide", "Mühle", ""]


def test_b64_in_named_rows(server: Server) -> None:
    answer = server.predict("text", {"instances": [{"x": b64(b"one")}, {"x": "two"}]})
    assert answer.json() == {"predictions": ["one", "two"]}


def test_bytes_that_are_no_text_are_answered_with_replacements(server: Server) -> None:
    answer = server.predict("echo-bytes", {"instances": [[b64(b"\xff\x00ok")]]})
    assert answer.json() == {"predictions": [["\ufffd\x00ok"]]}


@pytest.mark.parametrize("text", ['quote " backslash \\', "null", "\u0000", "𝄞", "line\nbreak", "NaN", "Infinity"])
def test_any_text_comes_back_as_it_went(server: Server, text: str) -> None:
    assert server.predict("text", {"instances": [text]}).json() == {"predictions": [text]}


@pytest.mark.parametrize("path", ["/v1/models/half/versions/1:predict", "/v1/models/half:predict"])
def test_version_in_the_path(server: Server, path: str) -> None:
    assert server.client.post(path, json={"instances": [1.0]}).json() == {"predictions": [0.5]}


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("bool", [[True, False]]),
        ("uint8", [[0, 255]]),
        ("uint16", [[0, 2**16 - 1]]),
        ("uint32", [[0, 2**32 - 1]]),
        ("uint64", [[0, 2**64 - 1]]),
        ("int8", [[-128, 127]]),
        ("int16", [[-(2**15), 2**15 - 1]]),
        ("int32", [[-(2**31), 2**31 - 1]]),
        ("int64", [[-(2**63), 2**63 - 1]]),
        ("fp16", [[0.5, -65504.0]]),
        ("bf16", [[0.5, -256.0]]),
        ("fp32", [[0.5, -3.0e38]]),
        ("fp64", [[0.1, -1.7e308]]),
        ("bytes", [["a", "b"]]),
    ],
)
def test_every_datatype_comes_back_to_its_ends(server: Server, datatype: str, values: list[list[Any]]) -> None:
    (shown,) = server.predict(f"echo-{datatype}", {"instances": values}).json()["predictions"]
    assert shown == (pytest.approx(values[0], rel=1e-6) if datatype == "fp32" else values[0])


def test_nan_and_infinity_pass_both_ways(server: Server) -> None:
    answer = server.predict("half", b'{"instances": [NaN, Infinity, -Infinity, 1.0]}')
    assert answer.text == '{"predictions":[NaN,Infinity,-Infinity,0.5]}'


def test_no_rows_are_answered_with_no_rows(server: Server) -> None:
    assert server.predict("half", {"inputs": []}).json() == {"outputs": []}


def test_status_tells_every_version_in_both_dialects(server: Server) -> None:
    for path in ("/v1/models/half", "/v1/models/half/versions/1"):
        told = server.client.get(path).json()
        assert told["model_version_status"] == [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
        assert (told["id"], told["object"], told["owned_by"]) == ("half", "model", "tidemill")
        assert isinstance(told["created"], int)


def test_metadata_tells_the_signature(server: Server) -> None:
    for path in ("/v1/models/two/metadata", "/v1/models/two/versions/1/metadata"):
        told = server.client.get(path).json()
        assert told["model_spec"] == {"name": "two", "signature_name": "", "version": "1"}
        signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["method_name"] == "tensorflow/serving/predict"
        assert signature["inputs"]["count"]["dtype"] == "DT_INT64"
        assert [side["size"] for side in signature["inputs"]["a"]["tensor_shape"]["dim"]] == ["-1", "3"]
        assert set(signature["outputs"]) == {"sum", "twice"}


@pytest.mark.parametrize("datatype", TF_NAMES)
def test_metadata_names_every_datatype(server: Server, datatype: str) -> None:
    told = server.client.get(f"/v1/models/echo-{datatype.lower()}/metadata").json()
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == TF_NAMES[datatype]


def test_metadata_of_a_model_of_any_rank(server: Server) -> None:
    told = server.client.get("/v1/models/half/metadata").json()
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["input"]["tensor_shape"] == {"dim": [], "unknown_rank": True}


def test_request_id_is_given_back(server: Server) -> None:
    assert server.predict("half", {"instances": [1]}, **{"x-request-id": "mine-7"}).headers["x-request-id"] == "mine-7"
    fresh = [server.predict("half", {"instances": [1]}).headers["x-request-id"] for _ in range(3)]
    assert len(set(fresh)) == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "told"),
    [
        ("POST", "/v1/models/nobody:predict", 404, "model.unknown", "nobody"),
        ("POST", "/v1/models/half/versions/7:predict", 404, "model.version_unknown", "7"),
        ("POST", "/v1/models/half/versions/x:predict", 404, "model.version_unknown", "x"),
        ("POST", "/v1/models/half/versions/-1:predict", 404, "model.version_unknown", "-1"),
        ("POST", "/v1/models/half/versions/²:predict", 404, "model.version_unknown", "whole"),
        ("POST", f"/v1/models/half/versions/{'9' * 40}:predict", 404, "model.version_unknown", "9"),
        ("GET", "/v1/models/nobody", 404, "model.unknown", "nobody"),
        ("GET", "/v1/models/half/versions/7", 404, "model.version_unknown", "7"),
        ("GET", "/v1/models/nobody/metadata", 404, "model.unknown", "nobody"),
        ("GET", "/v1/models/half/versions/7/metadata", 404, "model.version_unknown", "7"),
        ("GET", "/v1/models/half:predict", 405, "request.method", "POST"),
        ("PUT", "/v1/models/half:predict", 405, "request.method", "POST"),
        ("DELETE", "/v1/models/half", 405, "request.method", "DELETE"),
        ("GET", "/nowhere", 404, "request.route", "/nowhere"),
        ("POST", "/v1/models/half:destroy", 404, "request.route", ":destroy"),
        ("GET", "/v1/models/half/labels/none", 404, "model.label_unknown", "none"),
        ("GET", "/v1/models/half/labels/none/metadata", 404, "model.label_unknown", "none"),
        ("POST", "/v1/models/half/labels/none:predict", 404, "model.label_unknown", "none"),
        ("POST", "/v1/models/half/labels/none:classify", 404, "model.label_unknown", "none"),
        ("POST", "/v1/models/half/labels/none:regress", 404, "model.label_unknown", "none"),
        ("POST", "/v1/models/nobody/labels/none:regress", 404, "model.unknown", "nobody"),
        ("POST", "/v1/models/half/labels/none:destroy", 404, "request.route", ":destroy"),
        ("POST", "/v1/models/half/versions/1/labels/none:predict", 404, "request.route", "labels"),
        ("GET", "/v1/models/half:classify", 405, "request.method", "POST"),
        ("GET", "/v1/models/%2e%2e%2fsecret", 404, "request.route", ""),
    ],
)
def test_refusals_have_one_shape_and_a_stable_code(
    server: Server, method: str, path: str, status: int, code: str, told: str
) -> None:
    answer = server.client.request(method, path, json={"instances": [1.0]} if method == "POST" else None)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert problem.keys() == {"error", "code"}
    assert told in problem["error"]
    assert answer.headers["content-type"] == "application/json"


def test_signature_that_is_not_there(server: Server) -> None:
    answer = server.predict("half", {"signature_name": "train", "instances": [1]})
    assert (answer.status_code, answer.json()["code"]) == (400, "model.signature_unknown")
    assert "train" in answer.json()["error"]
    assert "serving_default" in answer.json()["error"]


def test_row_form_of_outputs_without_rows_is_refused_in_words(server: Server) -> None:
    answer = server.predict("slow", {"instances": 3})
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")
