"""Whatever is wrong with a request is a 400 that names the part to blame, soon, and leaves nothing behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fake_generator import CONTEXT_TOKENS
from fakes import KEY
from speaking import SpeakingServer
from tidemill.doors.openai.bounds import CHARACTERS_A_TOKEN_MAX

CHAT, TEXT, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, TOKENIZE, DETOKENIZE = "/v1/responses", "/v1/tokenize", "/v1/detokenize"
USER = {"role": "user", "content": "hello"}
SECONDS_MAX = 2.0
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "mill", "messages": [USER]},
    TEXT: {"model": "mill", "prompt": "hello"},
    VECTORS: {"model": "vectors", "input": "hello"},
    RESPONSES: {"model": "mill", "input": "hello"},
    TOKENIZE: {"model": "mill", "prompt": "hello"},
    DETOKENIZE: {"model": "mill", "tokens": [104]},
}


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **more}}


def called(schema: Any) -> dict[str, Any]:
    return {"tools": [function(parameters=schema)], "tool_choice": "required"}


def shaped(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}


def deep(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def laughing(levels: int) -> Any:
    """Ten times as much behind each name as behind the one before."""
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 10} for n in range(levels)}
    defs[f"d{levels}"] = {"type": "string"}
    return {"$ref": "#/$defs/d0", "$defs": defs}


RECURSING = {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}
SCHEMA = "response_format.json_schema.schema"

WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    # the model and what every request has
    (CHAT, {"model": None}, "model", "missing_required_parameter"),
    (CHAT, {"model": 7}, "model", "invalid_type"),
    (CHAT, {"model": "m" * 1000}, "model", "invalid_value"),
    (CHAT, {"model": "half"}, "model", "unsupported_parameter"),
    (CHAT, {"model": "vectors"}, "model", "unsupported_parameter"),
    (VECTORS, {"model": "mill"}, "model", "unsupported_parameter"),
    (VECTORS, {"model": "half"}, "model", "unsupported_parameter"),
    (CHAT, {"colour": "red"}, "colour", "unknown_parameter"),
    (CHAT, {"x" * 10_000: 1}, "x" * 200, "unknown_parameter"),
    (CHAT, {"stream": "yes"}, "stream", "invalid_type"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    (CHAT, {"stream": True, "stream_options": {"more": True}}, "stream_options.more", "unknown_parameter"),
    (CHAT, {"user": 7}, "user", "invalid_type"),
    (CHAT, {"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
    (CHAT, {"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    # how tokens are chosen
    (CHAT, {"max_tokens": 10**9}, "max_tokens", "invalid_value"),
    (CHAT, {"max_tokens": -1}, "max_tokens", "invalid_value"),
    (CHAT, {"max_tokens": 0}, "max_tokens", "invalid_value"),
    (CHAT, {"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    (CHAT, {"max_tokens": float("inf")}, "max_tokens", "invalid_value"),
    (CHAT, {"max_tokens": 10**30}, "max_tokens", "invalid_value"),
    (CHAT, {"max_completion_tokens": True}, "max_completion_tokens", "invalid_type"),
    (CHAT, {"max_tokens": CONTEXT_TOKENS}, "max_tokens", "context_length_exceeded"),
    (CHAT, {"max_completion_tokens": CONTEXT_TOKENS}, "max_completion_tokens", "context_length_exceeded"),
    (RESPONSES, {"max_output_tokens": CONTEXT_TOKENS}, "max_output_tokens", "context_length_exceeded"),
    (TEXT, {"logprobs": 1}, "logprobs", "unsupported_parameter"),
    (CHAT, {"messages": [{"role": "user", "content": "x" * CONTEXT_TOKENS}]}, "messages", "context_length_exceeded"),
    (TEXT, {"prompt": "x" * CONTEXT_TOKENS}, "prompt", "context_length_exceeded"),
    (RESPONSES, {"input": "x" * CONTEXT_TOKENS}, "input", "context_length_exceeded"),
    (CHAT, {"temperature": float("nan")}, "temperature", "invalid_value"),
    (CHAT, {"temperature": float("-inf")}, "temperature", "invalid_value"),
    (CHAT, {"temperature": -0.1}, "temperature", "invalid_value"),
    (CHAT, {"temperature": "warm"}, "temperature", "invalid_type"),
    (CHAT, {"temperature": True}, "temperature", "invalid_type"),
    (CHAT, {"top_p": 1.1}, "top_p", "invalid_value"),
    (CHAT, {"top_k": -2}, "top_k", "invalid_value"),
    (CHAT, {"min_p": 2}, "min_p", "invalid_value"),
    (CHAT, {"presence_penalty": 3}, "presence_penalty", "invalid_value"),
    (CHAT, {"frequency_penalty": -3}, "frequency_penalty", "invalid_value"),
    (CHAT, {"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
    (CHAT, {"seed": 2**70}, "seed", "invalid_value"),
    (CHAT, {"stop": ["x"] * 1000}, "stop", "invalid_value"),
    (CHAT, {"stop": ["x" * 1000]}, "stop[0]", "invalid_value"),
    (CHAT, {"stop": ["a", ""]}, "stop[1]", "invalid_value"),
    (CHAT, {"stop": ["a", 1]}, "stop[1]", "invalid_type"),
    (CHAT, {"stop": 1}, "stop", "invalid_type"),
    (CHAT, {"n": 10_000}, "n", "invalid_value"),
    (CHAT, {"n": 0}, "n", "invalid_value"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
    (CHAT, {"logit_bias": {"999999": 1}}, "logit_bias", "invalid_value"),
    (CHAT, {"logit_bias": {"one": 1}}, "logit_bias", "invalid_value"),
    (CHAT, {"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias", "invalid_value"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    (CHAT, {"top_logprobs": 1}, "top_logprobs", "invalid_value"),
    # messages
    (CHAT, {"messages": None}, "messages", "missing_required_parameter"),
    (CHAT, {"messages": []}, "messages", "invalid_value"),
    (CHAT, {"messages": "hello"}, "messages", "invalid_type"),
    (CHAT, {"messages": [USER] * 5000}, "messages", "invalid_value"),
    (CHAT, {"messages": [USER, "hello"]}, "messages[1]", "invalid_type"),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
    (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "invalid_value"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    (CHAT, {"messages": [{"role": "assistant"}]}, "messages[0].content", "missing_required_parameter"),
    (CHAT, {"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "invalid_type"),
    (CHAT, {"messages": [USER | {"mood": "x"}]}, "messages[0].mood", "unknown_parameter"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
        "messages[0].content[0].type", "unsupported_parameter",
    ),
    (
        CHAT,
        {"messages": [USER, {"role": "tool", "tool_call_id": "c", "content": "x"}]},
        "messages[1].tool_call_id", "invalid_value",
    ),
    (
        CHAT,
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
        ]}]},
        "messages[0].tool_calls[0].function.arguments", "invalid_value",
    ),
    (CHAT, {"functions": [{}]}, "functions", "unsupported_parameter"),
    (CHAT, {"audio": {}}, "audio", "unsupported_parameter"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    # tools
    (CHAT, {"tools": [function()] * 10_000}, "tools", "invalid_value"),
    (CHAT, {"tools": [function(), function()]}, "tools[1].function.name", "invalid_value"),
    (CHAT, {"tools": [{"type": "retrieval"}]}, "tools[0].type", "unsupported_parameter"),
    (CHAT, {"tools": [function(name="a b")]}, "tools[0].function.name", "invalid_value"),
    (CHAT, {"tools": [function(parameters=[])]}, "tools[0].function.parameters", "invalid_type"),
    (CHAT, {"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters.type", "invalid_type"),
    (CHAT, {"tool_choice": "required"}, "tool_choice", "invalid_value"),
    (CHAT, {"tools": [function()], "tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
    (CHAT, {"tools": [function()], "tool_choice": function(name="g")}, "tool_choice", "invalid_value"),
    (CHAT, {"tools": [function()], "tool_choice": {"type": "mcp"}}, "tool_choice.type", "unsupported_parameter"),
    (
        CHAT, called(RECURSING | {"type": "object"}),
        "tools[0].function.parameters.properties.next.$ref", "invalid_value",
    ),
    # schemas
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
    (CHAT, shaped(7), SCHEMA, "invalid_type"),
    (CHAT, shaped(RECURSING), f"{SCHEMA}.properties.next.$ref", "invalid_value"),
    (CHAT, shaped({"$ref": "#"}), f"{SCHEMA}.$ref", "invalid_value"),
    (CHAT, shaped({"$ref": "#/$defs/x"}), f"{SCHEMA}.$ref", "invalid_value"),
    (CHAT, shaped({"$ref": "file:///etc/passwd"}), f"{SCHEMA}.$ref", "invalid_value"),
    (CHAT, shaped(laughing(9)), SCHEMA, "invalid_value"),
    (CHAT, shaped(deep(200)), "", "invalid_value"),
    (CHAT, shaped({"description": "x" * 100_000}), SCHEMA, "invalid_value"),
    (CHAT, shaped({"type": "string", "enum": [1]}), SCHEMA, "invalid_value"),
    (CHAT, shaped({"enum": []}), f"{SCHEMA}.enum", "invalid_value"),
    (CHAT, shaped({"type": "integer", "minimum": 3, "maximum": 2}), SCHEMA, "invalid_value"),
    (CHAT, shaped({"type": "string", "minLength": 3, "maxLength": 2}), SCHEMA, "invalid_value"),
    (CHAT, shaped({"properties": {"a": False}}), f"{SCHEMA}.properties.a", "invalid_value"),
    (CHAT, shaped({"not": {}}), f"{SCHEMA}.not", "unsupported_parameter"),
    (
        CHAT,
        shaped({"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False}),
        f"{SCHEMA}.required", "invalid_value",
    ),
    (CHAT, shaped({"type": "string", "pattern": "(a{1000}){1000}"}), f"{SCHEMA}.pattern", "invalid_value"),
    (CHAT, shaped({"type": "string", "pattern": "(?=a)b"}), f"{SCHEMA}.pattern", "invalid_value"),
    (CHAT, shaped({"type": "string", "pattern": "(a"}), f"{SCHEMA}.pattern", "invalid_value"),
    (CHAT, shaped({"type": "string", "pattern": "a" * 1000}), f"{SCHEMA}.pattern", "invalid_value"),
    # completions
    (TEXT, {"prompt": None}, "prompt", "missing_required_parameter"),
    (TEXT, {"prompt": ""}, "prompt", "invalid_value"),
    (TEXT, {"prompt": []}, "prompt", "invalid_value"),
    (TEXT, {"prompt": ["a"] * 33}, "prompt", "invalid_value"),
    (TEXT, {"prompt": ["a", [1]]}, "prompt[1]", "invalid_type"),
    (TEXT, {"prompt": [[1], []]}, "prompt[1]", "invalid_value"),
    (TEXT, {"prompt": [1, -1]}, "prompt[1]", "invalid_value"),
    (TEXT, {"prompt": [1, 10**20]}, "prompt[1]", "invalid_value"),
    (TEXT, {"prompt": [1, "a"]}, "prompt[1]", "invalid_type"),
    (TEXT, {"best_of": 3}, "best_of", "unsupported_parameter"),
    (TEXT, {"suffix": "end"}, "suffix", "unsupported_parameter"),
    (TEXT, {"logprobs": 6}, "logprobs", "invalid_value"),
    # responses
    (RESPONSES, {"input": None}, "input", "missing_required_parameter"),
    (RESPONSES, {"input": []}, "input", "invalid_value"),
    (RESPONSES, {"input": 7}, "input", "invalid_type"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "unsupported_parameter"),
    (RESPONSES, {"input": [{"role": "wizard", "content": "x"}]}, "input[0].role", "invalid_value"),
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
    (RESPONSES, {"background": True}, "background", "unsupported_parameter"),
    (RESPONSES, {"max_tokens": 3}, "max_tokens", "unknown_parameter"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "s", "schema": RECURSING}}},
     "text.format.schema.properties.next.$ref", "invalid_value"),
    # vectors and tokens
    (VECTORS, {"input": []}, "input", "invalid_value"),
    (VECTORS, {"input": ""}, "input", "invalid_value"),
    (VECTORS, {"input": ["a", ""]}, "input[1]", "invalid_value"),
    (VECTORS, {"input": ["a"] * 3000}, "input", "invalid_value"),
    (VECTORS, {"input": {"a": 1}}, "input", "invalid_type"),
    (VECTORS, {"dimensions": 0}, "dimensions", "invalid_value"),
    (VECTORS, {"encoding_format": "hex"}, "encoding_format", "invalid_value"),
    (TOKENIZE, {"prompt": None}, "prompt", "missing_required_parameter"),
    (TOKENIZE, {"messages": [USER]}, "prompt", "invalid_value"),
    (DETOKENIZE, {"tokens": [257]}, "tokens[0]", "invalid_value"),
    (DETOKENIZE, {"tokens": ["a"]}, "tokens[0]", "invalid_type"),
]  # fmt: skip


@pytest.fixture(scope="module")
def lax() -> Iterator[SpeakingServer]:
    with SpeakingServer(openai_lax=True) as running:
        yield running


@pytest.mark.parametrize(("path", "change", "param", "code"), WRONG)
def test_wrong_request_names_what_is_wrong(
    mill: SpeakingServer, path: str, change: dict[str, Any], param: str, code: str
) -> None:
    body = json.dumps(GOOD[path] | change).encode()
    began = time.monotonic()
    answer = mill.post(path, body)
    assert time.monotonic() - began < SECONDS_MAX
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert set(told) == {"error", "code"}
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert told["error"]["code"] == code
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["param"] == param or (not param and told["error"]["param"])
    assert 10 < len(told["error"]["message"]) < 1000
    assert mill.generator.running == mill.service.gate.held == 0
    assert not mill.service.ledger.booked


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"7", b'"x"', b"null",
        b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000, b'{"model": "mill"', b"\0" * 100,
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(mill: SpeakingServer, body: bytes) -> None:
    answer = mill.post(CHAT, body)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("request.malformed", "input.datatype")
    assert answer.json()["error"]["param"] is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (b'"messages": [{"role": "user", "content": "a\\ud800b"}]', "messages[0].content"),
        (b'"messages": [{"role": "user", "content": "a\xffb"}]', "messages[0].content"),
        (b'"messages": [], "stop": ["\\udfff"]', "stop[0]"),
        (b'"messages": [], "\\ud800": 1', "'\\ud800'"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(mill: SpeakingServer, change: bytes, place: str) -> None:
    answer = mill.post(CHAT, b'{"model": "mill", ' + change + b"}")
    assert answer.status_code == 400
    assert (answer.json()["code"], answer.json()["error"]["param"]) == ("request.malformed", place)


def test_whole_pairs_are_read(mill: SpeakingServer) -> None:
    body = b'{"model": "mill", "messages": [{"role": "user", "content": "\\ud83c\\udf0a"}]}'
    assert mill.post(CHAT, body).status_code == 200
    assert mill.generator.asked[-1].messages[-1]["content"] == "🌊"  # type: ignore[union-attr]
    mill.service.ledger.booked.clear()


@pytest.mark.parametrize("fronted", [False, True])
def test_keys_routes_and_methods_are_refused_in_the_same_shape(fronted: bool) -> None:
    with SpeakingServer(fronted=fronted, words_body_bytes_max=2**20) as mill:
        refused_alike(mill)


def refused_alike(mill: SpeakingServer) -> None:
    for answer, status, code in (
        (mill.post(CHAT, GOOD[CHAT], key=""), 401, "invalid_api_key"),
        (mill.post(CHAT, GOOD[CHAT], key="wrong"), 401, "invalid_api_key"),
        (mill.post(CHAT, GOOD[CHAT] | {"model": "nobody"}), 404, "model_not_found"),
        (mill.client.get(CHAT), 405, "request.method"),
        (mill.post(CHAT, GOOD[CHAT], **{"content-encoding": "gzip"}), 415, "request.encoding"),
        (mill.post(CHAT, b"x" * (2 * 2**20)), 413, "request.too_large"),
        (mill.post(CHAT, GOOD[CHAT] | {"n": 0}), 400, "invalid_value"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_text_that_cannot_fit_never_reaches_the_model(mill: SpeakingServer) -> None:
    before = len(mill.generator.asked)
    long = "a" * (CONTEXT_TOKENS * CHARACTERS_A_TOKEN_MAX + 1)
    for path, change, param in (
        (CHAT, {"messages": [{"role": "user", "content": long}]}, "messages"),
        (TEXT, {"prompt": long}, "prompt"),
        (RESPONSES, {"input": long}, "input"),
        (TOKENIZE, {"prompt": long}, "prompt"),
    ):
        told = mill.post(path, GOOD[path] | change).json()["error"]
        assert (told["code"], told["param"]) == ("context_length_exceeded", param)
    assert len(mill.generator.asked) == before


def test_bad_requests_hold_up_nobody(mill: SpeakingServer) -> None:
    """The heaviest of them together cost less than the time that one of them may take."""
    heavy = [shaped(laughing(9)), {"tools": [function()] * 10_000}, {"stop": ["x"] * 1000}, shaped(deep(200))]
    began = time.monotonic()
    for change in heavy * 3:
        assert mill.post(CHAT, GOOD[CHAT] | change).status_code == 400
    assert time.monotonic() - began < SECONDS_MAX


def test_lax_service_takes_what_others_send(lax: SpeakingServer) -> None:
    answer = lax.post(
        CHAT,
        GOOD[CHAT] | {"colour": "red", "temperature": "0", "max_tokens": "3", "n": 2.0, "stream": "false"},
    )
    assert answer.status_code == 200, answer.text
    assert [len(each["message"]["content"].encode()) for each in answer.json()["choices"]] == [3, 3]
    for change, param in (({"temperature": "hot"}, "temperature"), ({"temperature": 9}, "temperature")):
        refused = lax.post(CHAT, GOOD[CHAT] | change)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_number_of_answers_is_bounded_by_a_setting() -> None:
    with SpeakingServer(choices_max=2) as server:
        assert server.post(CHAT, GOOD[CHAT] | {"n": 2}).status_code == 200
        assert server.post(CHAT, GOOD[CHAT] | {"n": 3}).json()["error"]["param"] == "n"


def test_deadline_is_the_service_s_or_the_caller_s(mill: SpeakingServer) -> None:
    answer = mill.post(CHAT, GOOD[CHAT] | {"ignore_eos": True}, **{"x-request-timeout-ms": "1"})
    assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")
    with SpeakingServer(words_timeout_ms=1) as server:
        answer = server.post(CHAT, GOOD[CHAT] | {"ignore_eos": True}, KEY)
        assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")
