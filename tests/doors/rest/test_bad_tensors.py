"""What KServe V2's dialect says to requests that are wrong, in JSON and in the binary tensor extension."""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import pytest

from serving import Server, quiet_after


def given(**changes: Any) -> dict[str, Any]:
    """A good input of `half`, changed; a change to ... removes."""
    good = {"name": "input", "datatype": "FP32", "shape": [2], "data": [1, 2]} | changes
    return {key: value for key, value in good.items() if value is not ...}


def refused(server: Server, model: str, body: Any, code: str, *told: str, **headers: str) -> None:
    answer = server.infer(model, body, **headers)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text[:500]
    for each in told:
        assert each in answer.json()["error"]
    assert len(answer.json()["error"]) < 600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"inputs": null}',
        b'{"inputs": {}}',
        b'{"inputs": "all"}',
        b'{"inputs": [1]}',
        b'{"inputs": [[]]}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": 5}]}',
        b'{"inputs": [{"name": null}]}',
        b"\xff\xff",
        b"[" * 100_000,
        b'{"inputs":[' * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_no_infer_request_is_malformed(server: Server, body: bytes) -> None:
    refused(server, "half", body, "request.malformed")


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"name": "other"}, "input.unknown", "other"),
        ({"datatype": "FP64"}, "input.datatype", "FP64"),
        ({"datatype": "fp32"}, "input.datatype", "fp32"),
        ({"datatype": ...}, "request.malformed", "datatype"),
        ({"datatype": 5}, "request.malformed", "datatype"),
        ({"datatype": ["FP32"]}, "request.malformed", "datatype"),
        ({"datatype": {}}, "request.malformed", "datatype"),
        ({"shape": ...}, "request.malformed", "shape"),
        ({"shape": None}, "request.malformed", "shape"),
        ({"shape": 2}, "request.malformed", "shape"),
        ({"shape": "2"}, "request.malformed", "shape"),
        ({"shape": [2.5]}, "request.malformed", "shape[0]"),
        ({"shape": [True, 2]}, "request.malformed", "shape[0]"),
        ({"shape": ["2"]}, "request.malformed", "shape[0]"),
        ({"shape": [-1]}, "input.shape", "-1"),
        ({"shape": [-2, -1]}, "input.shape", "-2"),
        ({"shape": [3]}, "input.shape", "3"),
        ({"shape": [2, 2]}, "input.shape", "[2, 2]"),
        ({"shape": [0]}, "input.shape", "[0]"),
        ({"shape": []}, "input.shape", "[]"),
        ({"shape": [2**40, 2**40]}, "input.shape", str(2**40)),
        ({"shape": [2**63, 0], "data": []}, "input.shape", str(2**63)),
        ({"shape": [0, 2**70], "data": []}, "input.shape", "0"),
        ({"shape": [2**62, 2, 0], "data": []}, "input.shape", "0"),
        ({"shape": [1] * 65, "data": [1]}, "input.shape", "65"),
        ({"shape": [1] * 10_000, "data": [1]}, "input.shape", "10000"),
        ({"data": ...}, "request.malformed", "data"),
        ({"data": None}, "input.datatype", "null"),
        ({"data": "12"}, "input.datatype", "FP32"),
        ({"data": {"a": 1}}, "input.datatype", "FP32"),
        ({"data": [1, "2"]}, "input.datatype", "FP32"),
        ({"data": [1, None]}, "input.datatype", "null"),
        ({"data": [True, False]}, "input.datatype", "boolean"),
        ({"data": [1, True]}, "input.datatype", "bool"),
        ({"data": [[1], [2, 3]]}, "input.shape", "ragged"),
        ({"data": [1, 1e39]}, "input.value", "1e+39"),
        ({"data": 1}, "input.shape", "1"),
        ({"parameters": {"binary_data_size": 8}, "data": ...}, "request.malformed", "8"),
        ({"parameters": {"binary_data_size": -8}, "data": ...}, "request.malformed", "-8"),
        ({"parameters": {"binary_data_size": "0"}, "data": ...}, "request.malformed", "binary_data_size"),
        ({"parameters": {"binary_data_size": 0.0}, "data": ...}, "request.malformed", "binary_data_size"),
        ({"parameters": {"binary_data_size": False}, "data": ...}, "request.malformed", "binary_data_size"),
        ({"parameters": {"binary_data_size": 0}, "data": ...}, "input.shape", "0 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_input_that_is_wrong(server: Server, change: dict[str, Any], code: str, told: str) -> None:
    with quiet_after(server):
        refused(server, "half", {"inputs": [given(**change)]}, code, told)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"outputs": "output"}, "request.malformed"),
        ({"outputs": ["output"]}, "request.malformed"),
        ({"outputs": [{}]}, "request.malformed"),
        ({"outputs": [{"name": ["output"]}]}, "request.malformed"),
        ({"outputs": [{"name": "nothing"}]}, "output.unknown"),
        ({"outputs": [{"name": "output"}, {"name": "nothing"}]}, "output.unknown"),
        ({"outputs": [{"name": "output", "parameters": []}]}, "request.malformed"),
        ({"outputs": [{"name": "output", "parameters": [1]}]}, "request.malformed"),
        ({"outputs": [{"name": "output", "parameters": {"classification": -1}}]}, "request.malformed"),
        ({"outputs": [{"name": "output", "parameters": {"classification": 2**31}}]}, "request.malformed"),
        ({"outputs": [{"name": "output", "parameters": {"classification": True}}]}, "request.malformed"),
        ({"outputs": [{"name": "output", "parameters": {"classification": "3"}}]}, "request.malformed"),
        ({"outputs": [{"name": "output", "parameters": {"shared_memory_region": "r"}}]}, "request.not_offered"),
        ({"parameters": [1]}, "request.malformed"),
        ({"parameters": "fast"}, "request.malformed"),
        ({"parameters": {"timeout": "soon"}}, "request.malformed"),
        ({"parameters": {"timeout": -1}}, "request.malformed"),
        ({"parameters": {"timeout": True}}, "request.malformed"),
        ({"parameters": {"timeout": 1.5}}, "request.malformed"),
        ({"id": 5}, "request.malformed"),
        ({"id": None}, "request.malformed"),
        ({"id": ["x"]}, "request.malformed"),
        ({"outputs": [{"name": "output"}, {"name": "output"}]}, "request.malformed"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wish_that_is_wrong(server: Server, change: dict[str, Any], code: str) -> None:
    refused(server, "half", {"inputs": [given()]} | change, code)


def test_an_input_given_twice(server: Server) -> None:
    refused(server, "half", {"inputs": [given(), given()]}, "request.malformed", "input")


def test_an_input_left_out(server: Server) -> None:
    refused(server, "two", {"inputs": []}, "input.missing", "'a'")


@pytest.mark.parametrize("odd", [b"\xff", b"\xed\xa0\x80", rb"\ud800", rb"\udc00\ud800"], ids=repr)
@pytest.mark.parametrize("place", ["id", "name", "datatype", "data", "output", "parameter", "unknown"])
def test_text_that_is_no_unicode(server: Server, odd: bytes, place: str) -> None:
    text = dict.fromkeys(("id", "data", "parameter", "unknown"), b"x")
    text |= {"name": b"x", "datatype": b"BYTES", "output": b"y", place: odd}
    body = b"""{"id": "%(id)b",
    "inputs": [{"name": "%(name)b", "datatype": "%(datatype)b", "shape": [1, 1], "data": ["%(data)b"]}],
    "outputs": [{"name": "%(output)b"}], "parameters": {"%(parameter)b": 1}, "%(unknown)b": "%(unknown)b"}"""
    answer = server.infer("echo-bytes", body % {key.encode(): value for key, value in text.items()})
    assert answer.status_code in ({400} if place in ("name", "datatype", "output") else {200, 400}), answer.text


def test_an_id_of_megabytes_or_with_odd_characters_comes_back(server: Server) -> None:
    for odd in ("null", "\u0000\n", "x" * 100_000, "𝄞"):
        assert server.infer("half", {"id": odd, "inputs": [given()]}).json()["id"] == odd


GOOD = json.dumps(
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}
).encode()
TAIL = struct.pack("<2f", 2.0, 4.0)


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (len(GOOD) + 9, GOOD + TAIL),
        (10**14, GOOD + TAIL),
        (len(GOOD) - 1, GOOD + TAIL),
        (len(GOOD) + 1, GOOD + TAIL),
        (len(GOOD) + 8, GOOD + TAIL),
        (0, GOOD + TAIL),
        (len(GOOD), GOOD + TAIL[:-1]),
        (len(GOOD), GOOD + TAIL + b"\0"),
        (len(GOOD), GOOD),
        (len(GOOD), GOOD + TAIL * 1000),
        (2, b"{}" + TAIL),
    ],
    ids=[
        "past the end",
        "far past the end",
        "cut json",
        "one more",
        "all",
        "none",
        "short",
        "long",
        "none there",
        "far",
        "no inputs",
    ],
)
def test_lying_lengths(server: Server, length: int, body: bytes) -> None:
    with quiet_after(server):
        refused(server, "half", body, "request.malformed", **{"inference-header-content-length": str(length)})


def test_the_good_one_is_answered(server: Server) -> None:
    answer = server.infer("half", GOOD + TAIL, **{"inference-header-content-length": str(len(GOOD))})
    assert answer.json()["outputs"][0]["data"] == [1.0, 2.0]


@pytest.mark.parametrize("size", [4, 7, 0])
def test_fewer_bytes_than_the_shape_wants(server: Server, size: int) -> None:
    head = GOOD.replace(b'"binary_data_size": 8', b'"binary_data_size": %d' % size)
    with quiet_after(server):
        refused(
            server,
            "half",
            head + TAIL[:size],
            "input.shape",
            f"{size} bytes",
            "8",
            **{"inference-header-content-length": str(len(head))},
        )


def in_bytes(server: Server, model: str, datatype: str, shape: list[int], raw: bytes, code: str, *told: str) -> None:
    each = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [each]}).encode()
    refused(server, model, head + raw, code, *told, **{"inference-header-content-length": str(len(head))})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01",
        b"\x01\0\0",
        b"\x01\0\0\0",
        b"\x01\0\0\0a",
        b"\x01\0\0\0a\x01\0\0\0",
        b"\xff\xff\xff\xffa\x01\0\0\0b",
        b"\x01\0\0\0a\xff\xff\xff\x7fb",
        b"\x01\0\0\0a\x01\0\0\0bc",
        b"\x01\0\0\0a\x01\0\0\0b\x01\0\0\0c",
    ],
    ids=repr,
)
def test_strings_whose_lengths_lie(server: Server, raw: bytes) -> None:
    with quiet_after(server):
        in_bytes(server, "echo-bytes", "BYTES", [1, 2], raw, "input.shape", "'x'", "2")


def test_strings_of_a_shape_beyond_all_memory(server: Server) -> None:
    with quiet_after(server):
        in_bytes(server, "echo-bytes", "BYTES", [2**31, 2**31], b"\0\0\0\0" * 100, "input.shape", "400 bytes")


@pytest.mark.parametrize("side", [2**31, 2**61, 2**62, 2**63 - 1, 2**64])
def test_numbers_of_a_shape_beyond_all_memory(server: Server, side: int) -> None:
    with quiet_after(server):
        in_bytes(server, "echo-fp32", "FP32", [side, 4], b"\0" * 16, "input.shape")


@pytest.mark.parametrize("byte", [2, 255])
def test_a_byte_that_is_no_bool(server: Server, byte: int) -> None:
    in_bytes(server, "echo-bool", "BOOL", [1, 2], bytes([1, byte]), "input.value", "BOOL")


def test_text_in_bytes_that_is_no_utf8(server: Server) -> None:
    in_bytes(server, "text", "BYTES", [1], b"\x02\0\0\0\xff\xfe", "engine.refused", "UTF-8")


@pytest.mark.parametrize(
    ("shape", "told"),
    [([3, 2], "[3, 2]"), ([6], "[6]"), ([1, 2, 3], "[1, 2, 3]"), ([2, 3, 1], "[2, 3, 1]"), ([0, 3], "[0, 3]")],
)
def test_shape_that_the_model_does_not_take(server: Server, shape: list[int], told: str) -> None:
    count = 1
    for side in shape:
        count *= side
    in_bytes(server, "fixed", "FP32", shape, b"\0\0\0\0" * count, "input.shape", told, "[2, 3]")


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_nan_is_no_whole_number(server: Server, word: bytes) -> None:
    body = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1,2],"data":[1,' + word + b"]}]}"
    refused(server, "whole", body, "input.value", "INT64")


def test_megabytes_of_a_wrong_datatype_or_name_are_told_in_short(server: Server) -> None:
    with quiet_after(server):
        refused(server, "half", {"inputs": [given(datatype="x" * 2**20)]}, "input.datatype")
        refused(server, "half", {"inputs": [given(name="x" * 2**20)]}, "input.unknown")
        refused(server, "half", {"inputs": [given()], "outputs": [{"name": "x" * 2**20}]}, "output.unknown")
        refused(server, "half", {"inputs": [given()], "parameters": {"timeout": "x" * 2**20}}, "request.malformed")
        refused(server, "half", {"inputs": [given(parameters={"binary_data_size": "x" * 2**20})]}, "request.malformed")


def test_deadline_in_the_request_is_kept(server: Server) -> None:
    body = {
        "inputs": [{"name": "steps", "datatype": "INT64", "shape": [], "data": [3000]}],
        "parameters": {"timeout": 60_000},
    }
    with quiet_after(server):
        answer = server.infer("slow", body)
        assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")


def test_very_many_dimensions_cost_nothing(server: Server) -> None:
    """Their product would be a number of megabytes."""
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [' + b"9," * 500_000 + b'9], "data": [1]}]}'
    with quiet_after(server):
        started = time.monotonic()
        assert server.infer("echo-fp32", body).json()["code"] == "input.shape"
        assert time.monotonic() - started < 2


def test_a_long_string_among_numbers_is_not_given_its_room_a_thousand_times(server: Server) -> None:
    values = ["x" * 500_000, *["a"] * 1000]
    with quiet_after(server):
        before = server.metrics()["tidemill_process_resident_bytes"]
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1001], "data": values}]
        assert server.infer("echo-fp32", {"inputs": inputs}).json()["code"] == "input.datatype"
        assert server.predict("echo-fp32", {"instances": values}).json()["code"] == "input.datatype"
        assert server.metrics()["tidemill_process_resident_bytes"] - before < 200e6
