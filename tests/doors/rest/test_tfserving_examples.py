"""TensorFlow Serving's classify and regress over REST, asked over the wire."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import httpx
import pytest

from serving import Server, quiet_after

MIB = 2**20


def ask(server: Server, model: str, verb: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.client.post(f"/v1/models/{model}:{verb}", content=content)


def results(server: Server, model: str, verb: str, body: Any) -> Any:
    answer = ask(server, model, verb, body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return answer.json()["results"]


def test_classify_answers_labels_with_scores_in_the_order_of_the_model(server: Server) -> None:
    (told,) = results(server, "kinds", "classify", {"examples": [{"x": [0.0, 0.0, math.log(2)]}]})
    assert [label for label, _ in told] == ["cat", "dog", "Mühle"]
    assert [score for _, score in told] == pytest.approx([0.25, 0.25, 0.5])


def test_a_score_is_written_as_short_as_its_type_allows(server: Server) -> None:
    answer = ask(server, "named", "classify", {"examples": [{"a": [0.1, 0.2], "b": 0.0}]})
    assert answer.text == '{"results":[[["low",0.1],["high",0.2]]]}'


def test_outputs_of_the_usual_names_are_the_classes_and_the_scores(server: Server) -> None:
    examples = [{"a": [1, 2], "b": 0.5}, {"a": [3, 4], "b": [1.0]}]
    told = results(server, "named", "classify", {"examples": examples})
    assert told == [[["low", 1.5], ["high", 2.5]], [["low", 4.0], ["high", 5.0]]]


def test_without_labels_a_class_is_its_place(server: Server) -> None:
    assert results(server, "half", "classify", {"examples": [{"input": [2, 4]}]}) == [[["0", 1.0], ["1", 2.0]]]


def test_regress_answers_a_value_for_each_example(server: Server) -> None:
    examples = [{"x": [1, 2, 3]}, {"x": [0.5, 0.5, 0.5]}]
    assert ask(server, "sum", "regress", {"examples": examples}).json() == {"results": [6.0, 1.5], "result": [6.0, 1.5]}
    assert results(server, "half", "regress", {"examples": [{"input": 1}, {"input": [3]}]}) == [0.5, 1.5]
    assert results(server, "named", "regress", {"examples": [{"a": [1, 2], "b": 7}]}) == [7.0]


def test_the_context_is_in_every_example_that_has_not_the_feature_itself(server: Server) -> None:
    body = {"context": {"b": 10}, "examples": [{"a": [1, 2]}, {"a": [1, 2], "b": 1}]}
    assert results(server, "named", "regress", body) == [10.0, 1.0]
    assert results(server, "named", "classify", body) == [
        [["low", 11.0], ["high", 12.0]],
        [["low", 2.0], ["high", 3.0]],
    ]


def test_features_that_nothing_asks_for_are_left_alone(server: Server) -> None:
    assert results(server, "half", "regress", {"examples": [{"input": 1, "name": "Ada", "none": []}]}) == [0.5]


def test_whole_and_other_numbers_may_stand_together(server: Server) -> None:
    assert results(server, "sum", "regress", {"examples": [{"x": [1, 0.5]}, {"x": [1, 2]}]}) == [1.5, 3.0]


def test_booleans_are_numbers_in_an_example(server: Server) -> None:
    assert results(server, "sum", "regress", {"examples": [{"x": [True, False, True]}]}) == [2.0]


def test_nan_and_infinity_pass_both_ways(server: Server) -> None:
    answer = ask(server, "half", "regress", b'{"examples": [{"input": NaN}, {"input": -Infinity}, {"input": 1}]}')
    assert answer.text == '{"results":[NaN,-Infinity,0.5],"result":[NaN,-Infinity,0.5]}'
    answer = ask(server, "named", "classify", b'{"examples": [{"a": [NaN, 0.5], "b": 0}]}')
    assert answer.text == '{"results":[[["low",NaN],["high",0.5]]]}'


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_a_version_and_the_signature_may_be_named(server: Server, verb: str) -> None:
    body = {"signature_name": "serving_default", "examples": [{"a": [1, 2], "b": 3}]}
    answer = server.client.post(f"/v1/models/named/versions/1:{verb}", json=body)
    assert answer.status_code == 200, answer.text
    body["signature_name"] = "train"
    assert ask(server, "named", verb, body).json()["code"] == "model.signature_unknown"


def refused(server: Server, model: str, verb: str, body: Any, status: int = 400) -> tuple[str, str]:
    answer = ask(server, model, verb, body)
    problem = answer.json()
    assert answer.status_code == status, answer.text[:500]
    assert problem.keys() == {"error", "code"}
    assert len(problem["error"]) < 600
    return problem["code"], problem["error"]


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize(
    ("example", "code", "told"),
    [
        ({}, "input.missing", "example 1"),
        ({"a": [1, 2]}, "input.missing", "'b'"),
        ({"A": [1, 2], "b": 1}, "input.missing", "its features are A, b"),
        ({"a": [1], "b": 1}, "input.shape", "example 1 has 1 values in feature 'a', example 0 has 2"),
        ({"a": [1, 2, 3], "b": 1}, "input.shape", "example 1 has 3"),
        ({"a": [], "b": 1}, "input.shape", "0 values"),
        ({"a": ["1", "2"], "b": 1}, "input.datatype", "strings"),
        ({"a": [{"b64": "AAAA"}, {"b64": "AAAA"}], "b": 1}, "input.datatype", "strings"),
        ({"a": [{"b64": "%"}, "x"], "b": 1}, "input.value", "b64"),
        ({"a": [1, "2"], "b": 1}, "input.datatype", "int, str"),
        ({"a": [1.5, True], "b": 1}, "input.datatype", "bool, float"),
        ({"a": [None, 1], "b": 1}, "input.datatype", "null"),
        ({"a": None, "b": 1}, "input.datatype", "null"),
        ({"a": [[1, 2]], "b": 1}, "input.datatype", "list"),
        ({"a": {"x": 1}, "b": 1}, "input.datatype", "object"),
        ({"a": [2**53 + 1, 1], "b": 1}, "input.value", "9007199254740993"),
        ({"a": [2**53 + 1, 1.5], "b": 1}, "input.value", "9007199254740993"),
        ({"a": [2**24 + 1, 1], "b": 1}, "input.value", "16777217"),
        ({"a": [2**63, 1], "b": 1}, "input.value", "9223372036854775808"),
        ({"a": [1e39, 1.0], "b": 1}, "input.value", "1e+39"),
        ({"a" * MIB: [{}], "a": [1, 2], "b": 1}, "input.datatype", "aaaa"),
        ({"a" * MIB: 2**63, "a": [1, 2], "b": 1}, "input.value", "beyond 64 bits"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_an_example_that_does_not_fit_is_told_with_its_place(
    server: Server, verb: str, example: Any, code: str, told: str
) -> None:
    with quiet_after(server):
        found, message = refused(server, "named", verb, {"examples": [{"a": [1, 2], "b": 3}, example]})
    assert (found, told in message) == (code, True), message


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"examples": []}',
        b'{"examples": {}}',
        b'{"examples": null}',
        b'{"examples": [1]}',
        b'{"examples": [[1]]}',
        b'{"examples": [null]}',
        b'{"instances": [1]}',
        b'{"examples": [{}], "context": 1}',
        b'{"examples": [{}], "context": []}',
        b'{"examples": [{}], "context": null}',
        b'{"examples": [{"input": nan}]}',
        b"[" * (10 * MIB),
        b'{"examples":[{"input":' + b"[" * 100_000,
        b'{"examples": ["' + b"a" * MIB + b'"]}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_no_request_is_malformed(server: Server, verb: str, body: bytes) -> None:
    with quiet_after(server):
        assert refused(server, "half", verb, body)[0] == "request.malformed"


@pytest.mark.parametrize(
    ("model", "verb", "example"),
    [
        ("text", "classify", {"x": "a"}),
        ("text", "regress", {"x": "a"}),
        ("whole", "classify", {"x": [1, 2]}),
        ("two", "regress", {"a": [1, 2, 3], "b": [1, 2, 3], "count": 1}),
        ("sum", "classify", {"x": [1]}),
        ("kinds", "regress", {"x": [1, 2, 3]}),
        ("half", "classify", {"input": 1}),
        ("half", "regress", {"input": [1, 2]}),
    ],
)
def test_a_model_that_cannot_be_asked_this_says_why(server: Server, model: str, verb: str, example: Any) -> None:
    if (model, verb) == ("sum", "classify"):
        # Nothing in its signature tells that one column is no classes.
        assert results(server, model, verb, {"examples": [example]}) == [[["0", 1.0]]]
        return
    code, message = refused(server, model, verb, {"examples": [example]})
    assert code == "model.signature_unknown"
    assert f"tensorflow/serving/{verb}" in message


def test_a_short_context_is_not_made_into_a_long_tensor(server: Server) -> None:
    body = {"context": {"x": [0.5] * 100_000}, "examples": [{}] * 10_000}
    with quiet_after(server):
        code, message = refused(server, "sum", "regress", body, 413)
    assert code == "request.too_large"
    assert "8000000000 bytes in 10000 examples" in message


def test_a_free_side_is_told_by_the_number_of_values(server: Server) -> None:
    shown = results(server, "echo-fp32", "classify", {"examples": [{"x": [1, 2]}, {"x": [3, 4]}]})
    assert shown == [[["0", 1.0], ["1", 2.0]], [["0", 3.0], ["1", 4.0]]]


def test_padding_and_white_space_of_base64_are_borne(server: Server) -> None:
    for text in ("QQ==", "QQ", "Q Q\n="):
        answer = server.predict("text", {"instances": [{"b64": text}]})
        assert answer.json() == {"predictions": ["A"]}, text
    assert base64.b64decode("QQ==") == b"A"


def test_inputs_that_no_input_asks_for_are_left_alone_in_column_form(server: Server) -> None:
    assert server.predict("half", {"inputs": {"input": [1], "more": [2]}}).json() == {"outputs": [0.5]}


@pytest.mark.parametrize(
    ("datatype", "number"), [("FP16", 2**11 + 1), ("BF16", 2**8 + 1), ("FP32", 2**24 + 1), ("FP64", 2**53 + 1)]
)
@pytest.mark.parametrize("beside", [[], [0.5]])
def test_a_whole_number_is_not_rounded_unseen(server: Server, datatype: str, number: int, beside: list[float]) -> None:
    model = f"echo-{datatype.lower()}"
    for sign in (1, -1):
        answer = server.predict(model, {"instances": [[sign * number, *beside]]})
        assert (answer.status_code, answer.json()["code"]) == (400, "input.value")
        assert str(sign * number) in answer.json()["error"]
        even = sign * 2 * (number - 1)
        assert server.predict(model, {"instances": [[even, *beside]]}).json() == {"predictions": [[even, *beside]]}


def test_models_are_listed_as_openai_does(server: Server) -> None:
    told = server.client.get("/v1/models").json()
    assert told["object"] == "list"
    by_name = {each["id"]: each for each in told["data"]}
    assert {"half", "kinds", "echo-bytes"} <= by_name.keys()
    assert by_name["half"].keys() == {"id", "object", "created", "owned_by"}
    one = server.client.get("/v1/models/half").json()
    assert one.items() >= by_name["half"].items()
