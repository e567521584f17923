"""What TensorFlow Serving's dialect says to requests that are wrong: status, code, the value and what was expected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving import Server, post, quiet_after

MIB = 2**20


def refused(server: Server, model: str, body: Any, code: str, *told: str, status: int = 400) -> str:
    """The message of the refusal, checked."""
    answer = server.predict(model, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:500]
    message: str = answer.json()["error"]
    for each in told:
        assert each in message
    assert "Traceback" not in message
    assert ".py" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nonsense",
        b'{"instances": [1.0, 2.0',
        b'{"instances": [1.0, 2.0}]',
        b'{"instances": [1,]}',
        b"{'instances': [1]}",
        b'{"instances": [01]}',
        b'{"instances": [.5]}',
        b'{"instances": [1.]}',
        b'{"instances": [+1]}',
        b'{"instances": [0x10]}',
        b'{"instances": [1]} trailing',
        b'{"instances": [1]}{"instances": [2]}',
        b'{"instances": [nan]}',
        b'{"instances": [NaN, oops]}',
        b'\xff\xfe{"instances": [1]}',
        b'{"instances": ["\xff\xfe"]}',
        b'{"instances": ["\xed\xa0\x80"]}',
        '{"instances": [1]}'.encode("utf-16"),
        b"\x00" * 100,
        b"PK\x03\x04 not json",
    ],
    ids=lambda body: repr(body[:25]),
)
def test_what_is_not_json_is_malformed(server: Server, body: bytes) -> None:
    refused(server, "half", body, "request.malformed", "JSON")


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_truncated_json_is_malformed(server: Server, cut: int) -> None:
    whole = b'{"instances": [1.0, NaN, "text", {"b64": "AAAA"}]}'
    refused(server, "half", whole[:-cut], "request.malformed", "JSON")


@pytest.mark.parametrize("mark", [b"[", b'{"instances":', b'{"inputs":[', b'[{"a":'], ids=repr)
@pytest.mark.parametrize("tail", [b"", b" NaN"], ids=["", "NaN"])
def test_deep_nesting_is_refused(server: Server, mark: bytes, tail: bytes) -> None:
    with quiet_after(server):
        refused(server, "half", mark * 100_000 + tail, "request.malformed")


@pytest.mark.parametrize("depth", [65, 100, 500, 900])
@pytest.mark.parametrize("value", [b"1", b"NaN", b'"text"'])
@pytest.mark.parametrize("model", ["half", "echo-bytes"])
def test_more_dimensions_than_an_array_can_have_are_refused(
    server: Server, depth: int, value: bytes, model: str
) -> None:
    body = b'{"inputs": ' + b"[" * depth + value + b"]" * depth + b"}"
    answer = server.predict(model, body)
    assert answer.status_code == 400, answer.text[:300]
    assert answer.json()["code"] in ("input.shape", "input.datatype", "request.malformed")


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'"text"', b"null", b"true", b"[1, 2]", b"NaN"], ids=lambda body: body.decode()
)
def test_a_body_that_is_no_object_is_malformed(server: Server, body: bytes) -> None:
    refused(server, "half", body, "request.malformed", "object")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instance": [1]},
        {"instances": [1], "inputs": [1]},
        {"instances": []},
        {"instances": {}},
        {"instances": None},
        {"instances": 1},
        {"instances": "text"},
    ],
    ids=json.dumps,
)
def test_neither_form_is_malformed(server: Server, body: Any) -> None:
    refused(server, "half", body, "request.malformed", "instances")


@pytest.mark.parametrize(
    ("values", "code", "told"),
    [
        ([[1, 2], [3]], "input.shape", "ragged: [0] has 2, [1] has 1; rows"),
        ([[1, 2], 3], "input.shape", "ragged: [0] has 2, [1] is a value; rows"),
        ([1, [2]], "input.shape", "ragged: [0] is a value, [1] has 1; rows"),
        ([[[1]], [[2, 3]]], "input.shape", "ragged: [0][0] has 1, [1][0] has 2; rows"),
        (["1.0"], "input.datatype", "strings"),
        ([1.0, "2.0"], "input.datatype", "str"),
        ([None], "input.datatype", "null"),
        ([1, None], "input.datatype", "null"),
        ([True], "input.datatype", "boolean"),
        ([1.5, True], "input.datatype", "bool"),
        ([[1.0], [True]], "input.datatype", "bool"),
        ([{}], "input.missing", "input"),
        ([[{}]], "input.datatype", "FP32"),
        ([1e39], "input.value", "1e+39"),
        ([1.0, -1e39], "input.value", "-1e+39"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_numbers_that_are_not_fp32_are_refused_with_the_value(
    server: Server, values: Any, code: str, told: str
) -> None:
    with quiet_after(server):
        refused(server, "half", {"instances": values}, code, told, "input")


@pytest.mark.parametrize(
    ("datatype", "value", "code"),
    [
        ("UINT8", -1, "input.value"),
        ("UINT8", 256, "input.value"),
        ("INT8", 128, "input.value"),
        ("INT8", -129, "input.value"),
        ("UINT16", 65536, "input.value"),
        ("INT16", 32768, "input.value"),
        ("UINT32", 2**32, "input.value"),
        ("UINT32", -1, "input.value"),
        ("INT32", 2**31, "input.value"),
        ("INT64", 2**63, "input.value"),
        ("INT64", -(2**63) - 1, "input.value"),
        ("UINT64", 2**64, "input.value"),
        ("UINT64", -1, "input.value"),
        ("INT64", 10**30, "input.value"),
        ("FP16", 65536, "input.value"),
        ("FP16", 1e5, "input.value"),
        ("BF16", 3.4e38, "input.value"),
        ("FP32", 3.5e38, "input.value"),
        ("INT32", 1.5, "input.datatype"),
        ("INT32", 1.0, "input.datatype"),
        ("UINT8", True, "input.datatype"),
        ("BOOL", 1, "input.datatype"),
        ("BOOL", 0.0, "input.datatype"),
        ("BOOL", "true", "input.datatype"),
        ("BOOL", None, "input.datatype"),
        ("INT64", "5", "input.datatype"),
        ("FP64", "NaN", "input.datatype"),
        ("FP64", True, "input.datatype"),
        ("BYTES", 5, "input.datatype"),
        ("BYTES", None, "input.datatype"),
        ("BYTES", True, "input.datatype"),
        ("BYTES", {"b65": "AA=="}, "input.datatype"),
    ],
)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a good one"])
def test_value_that_the_datatype_cannot_hold(
    server: Server, datatype: str, value: Any, code: str, beside: bool
) -> None:
    good: dict[str, Any] = {"BOOL": True, "BYTES": "text"}
    row = [good.get(datatype, 1), value] if beside else [value]
    message = refused(server, f"echo-{datatype.lower()}", {"instances": [row]}, code, "'x'", datatype)
    if code == "input.value":
        assert str(value) in message or str(float(value)) in message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("datatype", ["INT8", "INT64", "UINT8", "UINT64", "BOOL", "BYTES"])
def test_nan_and_infinity_are_no_whole_numbers(server: Server, datatype: str, word: str) -> None:
    answer = server.predict(f"echo-{datatype.lower()}", f'{{"instances": [[{word}]]}}'.encode())
    assert answer.status_code == 400
    assert answer.json()["code"] in ("input.value", "input.datatype")
    assert datatype in answer.json()["error"]


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_nan_and_infinity_are_floats(server: Server, datatype: str) -> None:
    answer = server.predict(f"echo-{datatype.lower()}", b'{"instances": [[NaN, Infinity, -Infinity]]}')
    assert answer.text == '{"predictions":[[NaN,Infinity,-Infinity]]}'


@pytest.mark.parametrize(
    ("model", "body", "code", "told"),
    [
        ("fixed", {"inputs": [[1, 2, 3]]}, "input.shape", "[1, 3]"),
        ("fixed", {"inputs": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}, "input.shape", "[3, 3]"),
        ("fixed", {"inputs": [1, 2, 3, 4, 5, 6]}, "input.shape", "[6]"),
        ("fixed", {"inputs": [[[1, 2, 3], [4, 5, 6]]]}, "input.shape", "[1, 2, 3]"),
        ("fixed", {"inputs": 1}, "input.shape", "[]"),
        ("fixed", {"inputs": []}, "input.shape", "[0]"),
        ("fixed", {"inputs": [[], []]}, "input.shape", "[2, 0]"),
        ("slow", {"inputs": [1]}, "input.shape", "[1]"),
        ("poison", {"inputs": [[1]]}, "input.shape", "[1, 1]"),
        ("two", {"inputs": {"a": [[1, 2, 3]], "b": [[1, 2, 3]]}}, "input.missing", "count"),
        ("two", {"inputs": {}}, "input.missing", "'a'"),
        ("two", {"inputs": [[1, 2, 3]]}, "input.missing", "count"),
        ("two", {"instances": [[1, 2, 3]]}, "input.missing", "count"),
        ("two", {"inputs": {"a": [[1, 2, 3]], "more": [2]}}, "input.unknown", "more"),
        ("half", {"inputs": {"Input": [1]}}, "input.unknown", "Input"),
        ("half", {"instances": [{"wrong": 1}]}, "input.unknown", "wrong"),
        ("half", {"instances": [{"input": 1}, {"other": 1}]}, "input.shape", "instance 1"),
        ("half", {"instances": [{"input": 1}, 2]}, "input.shape", "instance 1"),
        ("half", {"instances": [1, {"input": 1}]}, "input.datatype", "FP32"),
        ("text", {"instances": [{"b64": "not base64!"}]}, "input.value", "b64"),
        ("text", {"instances": [{"b64": "QQQQQ"}]}, "input.value", "b64"),
        ("text", {"instances": [{"b64": 5}]}, "input.value", "b64"),
        ("text", {"instances": [{"b64": None}]}, "input.value", "b64"),
        ("text", {"instances": [{"b64": "Ä"}]}, "input.value", "b64"),
        ("text", {"instances": [{"b64": "/w=="}]}, "engine.refused", "UTF-8"),
        ("half", {"instances": [{"b64": "AACAPw=="}]}, "input.datatype", "FP32"),
        (
            "half",
            {"signature_name": ["serving_default"], "instances": [1]},
            "model.signature_unknown",
            "serving_default",
        ),
        ("half", {"signature_name": None, "instances": [1]}, "model.signature_unknown", "serving_default"),
        ("half", {"signature_name": {}, "instances": [1]}, "model.signature_unknown", "serving_default"),
        ("poison", {"instances": [3, 99]}, "engine.refused", "99"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_tensors_that_do_not_fit_the_model(server: Server, model: str, body: Any, code: str, told: str) -> None:
    refused(server, model, body, code, told)


def test_rows_that_do_not_match_each_other_are_refused(server: Server) -> None:
    body = {"inputs": {"a": [[1, 2, 3]] * 2, "b": [[1, 2, 3]] * 3, "count": [[1]]}}
    answer = server.predict("two", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] in ("input.shape", "engine.refused")


def test_a_key_given_twice_counts_once(server: Server) -> None:
    """JSON leaves it open; every parser we know takes the last."""
    answer = server.predict("half", b'{"instances": [1.0], "instances": [2.0]}')
    assert answer.json() == {"predictions": [1.0]}


def test_ten_megabytes_of_spaces(server: Server) -> None:
    with quiet_after(server):
        refused(server, "half", b" " * (10 * MIB), "request.malformed")
        assert server.predict("half", b" " * (10 * MIB) + b'{"instances":[2]}').json() == {"predictions": [1.0]}


def test_megabytes_of_one_string_where_numbers_belong(server: Server) -> None:
    with quiet_after(server):
        refused(server, "half", {"instances": ["s3cr3t" * MIB]}, "input.datatype")


@pytest.mark.parametrize("before", [b"", b"NaN, "])
def test_a_number_of_a_million_digits(server: Server, before: bytes) -> None:
    """Python's own integers would take minutes over it."""
    with quiet_after(server):
        refused(server, "half", b'{"instances": [' + before + b"9" * 1_000_000 + b"]}", "request.malformed", "JSON")


@pytest.mark.parametrize("rank", [33, 64])
def test_many_dimensions_are_as_good_as_few(server: Server, rank: int) -> None:
    answer = server.predict("half", b'{"inputs": ' + b"[" * rank + b"4" + b"]" * rank + b"}")
    assert answer.content == b'{"outputs":' + b"[" * rank + b"2.0" + b"]" * rank + b"}"


def test_no_payload_comes_back_in_a_refusal(server: Server) -> None:
    """A text sent where it does not belong may be a secret: it is named by its type."""
    for body in (
        {"instances": ["s3cr3t"]},
        {"instances": [1.0, "s3cr3t"]},
        {"instances": [[{"x": "s3cr3t"}]]},
        {"s3cr3t": 1},
    ):
        assert "s3cr3t" not in server.predict("half", body).text
    assert "s3cr3t" not in server.predict("half", b'{"instances": [1.0], "password": "s3cr3t').text


def test_chunked_body_is_read_whole(server: Server) -> None:
    def parts() -> Any:
        yield from (b'{"inst', b"", b'ances": ', b"[4.0]}")

    answer = server.client.post("/v1/models/half:predict", content=parts())
    assert answer.json() == {"predictions": [2.0]}


def test_bad_chunk_is_no_http(server: Server) -> None:
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with quiet_after(server), server.connect() as wire:
        answer = wire.ask(head + b"zz\r\n{}\r\n")
        assert (answer.status, answer.code) == (400, "request.malformed")
        assert wire.closed


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
def test_compressed_body_is_not_read(server: Server, encoding: str) -> None:
    answer = server.predict("half", {"instances": [1]}, **{"content-encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (415, "request.encoding")
    assert encoding in answer.json()["error"]


def test_identity_is_no_encoding(server: Server) -> None:
    assert server.predict("half", {"instances": [1]}, **{"content-encoding": "Identity"}).status_code == 200


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("content-length: -5", "Content-Length"),
        ("content-length: 1e3", "Content-Length"),
        ("content-length: 18446744073709551616", "Content-Length"),
        ("content-length: 5\r\ncontent-length: 6", "Content-Length"),
        ("content-length: 5\r\ntransfer-encoding: chunked", "Transfer-Encoding"),
        ("transfer-encoding: nonsense", "Transfer-Encoding"),
        ("transfer-encoding: chunked\r\nx-pad: y\r\n\r\nzz", "chunk size"),
    ],
)
def test_lengths_that_contradict_are_refused_by_name(server: Server, line: str, told: str) -> None:
    """Two readings of one length are how requests are smuggled past a proxy."""
    with quiet_after(server), server.connect() as wire:
        answer = wire.ask(
            f"POST /v1/models/half:predict HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n".encode() + b"5\r\nhello\r\n0\r\n\r\n"
        )
        assert (answer.status, answer.code) == (400, "request.malformed")
        assert told.lower() in answer.body.decode().lower()
        assert len(answer.header("x-request-id")) > 10
        assert wire.closed


def test_tls_is_told_that_this_port_speaks_in_the_clear(server: Server) -> None:
    with server.connect() as wire:
        answer = wire.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert (answer.status, answer.code) == (400, "request.malformed")
        assert b"in the clear" in answer.body
        assert wire.closed


def test_place_in_b64_that_cannot_be_read_is_told(server: Server) -> None:
    refused(server, "text", {"instances": [{"b64": "YWJj*A=="}]}, "input.value", "character 5 is '*'", "input")


@pytest.mark.parametrize("name", ["x-request-timeout-ms", "inference-header-content-length"])
@pytest.mark.parametrize("value", ["", "-1", "1.5", "soon", "9" * 50, "²"])
def test_header_that_is_no_number(server: Server, name: str, value: str) -> None:
    with server.connect() as wire:
        answer = wire.ask(post("/v1/models/half:predict", b'{"instances":[1]}', f"{name}: {value}"))
        assert (answer.status, answer.code) == (400, "request.malformed")
        assert name.encode() in answer.body


@pytest.mark.parametrize("name", ["x-request-id", "idempotency-key"])
@pytest.mark.parametrize("value", ["x" * 129, "\u00e4", "tab\there"])
def test_request_id_that_cannot_stand_in_a_log(server: Server, name: str, value: str) -> None:
    with server.connect() as wire:
        body = b'{"instances":[1]}'
        lines = f"host: x\r\ncontent-length: {len(body)}\r\n{name}: {value}\r\n\r\n"
        answer = wire.ask(b"POST /v1/models/half:predict HTTP/1.1\r\n" + lines.encode("latin-1") + body)
        assert (answer.status, answer.code) == (400, "request.malformed")


def test_deadline_of_the_caller_is_kept(server: Server) -> None:
    with quiet_after(server):
        answer = server.predict("slow", {"inputs": 3000}, **{"x-request-timeout-ms": "60"})
        assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")


def test_a_storm_of_bad_requests_leaves_nothing_behind(server: Server) -> None:
    bodies = [
        b"{",
        b"[]",
        b'{"instances":["x"]}',
        b'{"instances":[1e39]}',
        b'{"instances":[1],"inputs":[1]}',
        b'{"instances":[1]}',
    ]
    with quiet_after(server), server.connect() as wire:
        for _ in range(50):
            wire.send(b"".join(post("/v1/models/half:predict", body) for body in bodies))
            assert [wire.answer().status for _ in bodies] == [400, 400, 400, 400, 400, 200]


def test_poison_spoils_nobody_elses_batch(server: Server) -> None:
    """Requests that are batched together: the bad one alone is refused."""
    with quiet_after(server):
        wires = [server.connect() for _ in range(16)]
        for _ in range(20):
            for place, wire in enumerate(wires):
                body = json.dumps({"instances": [99 if place == 7 else place % 10]}).encode()
                wire.send(post("/v1/models/poison:predict", body))
            for place, wire in enumerate(wires):
                answer = wire.answer()
                assert answer.status == (400 if place == 7 else 200)
                if place != 7:
                    assert json.loads(answer.body) == {"predictions": [10.0 * (place % 10)]}
        for wire in wires:
            wire.socket.close()
