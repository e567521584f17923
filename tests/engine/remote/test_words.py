"""What is sent to an OpenAI-compatible upstream and read from it: translation, without a server."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest

from tidemill.core.errors import (
    NotOffered,
    Overloaded,
    PromptTooLong,
    RefusedByEngine,
    TidemillError,
    UpstreamFailed,
    WrongValue,
)
from tidemill.core.generation import CallDelta, Calling, Constraint, Delta, Embed, Generate, Sampling
from tidemill.core.package import Remote, Upstream
from tidemill.core.request import Usage
from tidemill.core.streamed import EVENT_BYTES_MAX
from tidemill.engine.remote import openai
from tidemill.engine.remote.calls import Calls
from tidemill.engine.remote.http import judge
from tidemill.engine.remote.upstreams import Reply
from tidemill.engine.remote.words import Said

WISH = Remote("openai", (Upstream("http://127.0.0.1:1"),))
VLLM = Remote("openai", (Upstream("http://127.0.0.1:1"),), extensions=True)


def body(work: Generate, wish: Remote = WISH) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openai.asking("m", work, wish).body)
    return found


def event(**told: Any) -> bytes:
    return json.dumps(told).encode()


class Flood:
    """An upstream whose event has no end."""

    async def part(self) -> bytes:
        return b"data: " + b"x" * EVENT_BYTES_MAX


async def test_event_without_end_is_the_upstreams_failure() -> None:
    model = SimpleNamespace(name="m", counting=None, recounted=True)
    with pytest.raises(UpstreamFailed, match="an event of more than"):
        await Said(Generate(prompt="a"), model).begin(cast(Reply, Flood()))  # type: ignore[arg-type]


def test_chat_and_completion_are_asked_in_openais_words() -> None:
    chat = Generate(messages=({"role": "user", "content": "hi"},), choices=2, sampling=Sampling(5, 0.5, 0.9, seed=7))
    asked = openai.asking("m", chat, WISH)
    assert asked.path == "/v1/chat/completions"
    assert json.loads(asked.body) == {
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 2, "max_tokens": 5, "temperature": 0.5,
        "top_p": 0.9, "seed": 7, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert openai.asking("m", Generate(prompt="hi"), WISH).path == "/v1/completions"
    assert body(Generate(tokens=(1, 2)))["prompt"] == [1, 2]
    newer = Remote("openai", WISH.upstream, max_tokens_name="max_completion_tokens")
    assert body(Generate(messages=chat.messages, sampling=Sampling(5)), newer)["max_completion_tokens"] == 5


@pytest.mark.parametrize("name", ["top_k", "min_p", "repetition_penalty", "ignore_eos"])
def test_what_the_protocol_has_no_word_for_is_refused_unless_the_upstream_is_said_to_know_it(name: str) -> None:
    value = {"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": True}[name]
    work = Generate(prompt="hi", sampling=Sampling(**{name: value}))
    with pytest.raises(NotOffered, match=f"no {name}") as caught:
        body(work)
    assert caught.value.param == name
    assert body(work, VLLM)[name] == value


def test_constraints_are_handed_on_or_refused() -> None:
    messages = ({"role": "user", "content": "hi"},)
    schema = {"type": "object"}
    asked = body(Generate(messages=messages, constraint=Constraint("json_schema", json.dumps(schema))))
    assert asked["response_format"]["json_schema"]["schema"] == schema
    assert body(Generate(messages=messages, constraint=Constraint("json")))["response_format"]["type"] == "json_object"
    for work in (
        Generate(prompt="hi", constraint=Constraint("json")),
        Generate(messages=messages, constraint=Constraint("regex", "a+")),
        Generate(messages=messages, constraint=Constraint("json", calls='{"type": "object"}')),
    ):
        with pytest.raises(NotOffered):
            body(work)
    assert body(Generate(prompt="hi", constraint=Constraint("regex", "a+")), VLLM)["structured_outputs"] == {
        "regex": "a+"
    }


def test_what_was_not_said_of_functions_is_not_said_to_the_upstream() -> None:
    tools = ({"type": "function", "function": {"name": "f"}},)
    messages = ({"role": "user", "content": "hi"},)
    plain = body(Generate(messages=messages, tools=tools, calling=Calling()))
    assert plain["tools"] == list(tools)
    assert not plain.keys() & {"tool_choice", "parallel_tool_calls"}
    named = body(Generate(messages=messages, tools=tools, calling=Calling("named", "f", parallel=False)))
    assert named["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert named["parallel_tool_calls"] is False


def call(**told: Any) -> dict[str, Any]:
    return {"type": "function", **told}


def test_calls_are_numbered_as_they_begin_however_servers_number_them() -> None:
    f, g = {"name": "f", "arguments": ""}, {"name": "g", "arguments": "{}"}
    begun = (CallDelta(0, "a", "f"), CallDelta(1, "b", "g", "{}"))
    for first, second in ((0, 1), (1, 0), (4, 7), (0, 0), (None, None)):
        places = [{} if index is None else {"index": index} for index in (first, second)]
        calls = Calls()
        made = calls.take([call(**places[0], id="a", function=f)])
        made += calls.take([call(**places[1], id="b", function=g)])
        assert made == begun
    assert calls.take([{"function": {"arguments": "x"}}]) == (CallDelta(1, arguments="x"),)
    assert calls.take(None) == ()


def test_name_and_id_that_are_told_again_begin_nothing() -> None:
    calls = Calls()
    for arguments in ("{", "}"):
        (told,) = calls.take([call(index=0, id="a", function={"name": "f", "arguments": arguments})])
        assert (told.call, told.arguments) == (0, arguments)


@pytest.mark.parametrize(
    "told",
    [
        7, [7], [{}], [{"index": True, "function": {"name": "f"}}], [{"index": 0, "id": 7, "function": {"name": "f"}}],
        [{"index": 0, "function": 7}], [{"index": 0, "function": {"name": ["f"]}}],
        [{"index": index, "id": str(index), "function": {"name": "f"}} for index in range(1025)],
    ],
)  # fmt: skip
def test_what_is_no_call_is_the_upstreams_failure(told: Any) -> None:
    with pytest.raises(UpstreamFailed):
        openai.Said(1).take(event(choices=[{"index": 0, "delta": {"tool_calls": told}}]))


def test_chunks_become_deltas_and_the_last_one_tells_the_usage() -> None:
    said = openai.Said(2)
    assert said.take(event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])) == ()
    assert said.take(event(choices=[{"index": 1, "delta": {"content": "ß"}}], usage=None)) == (Delta(1, "ß"),)
    for index, (told, finish) in enumerate([("length", "length"), ("eos", "stop")]):
        (delta,) = said.take(event(choices=[{"index": index, "delta": {}, "finish_reason": told}]))
        assert delta == Delta(index, "", finish=finish)  # type: ignore[arg-type]
    assert said.complete
    details = {"cached_tokens": 3}
    told_usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": details}
    assert said.take(event(choices=[], usage=told_usage)) == ()
    assert said.usage == Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3)
    assert not said.over
    said.take(b"[DONE]")
    assert said.over


def test_logprobs_are_read_in_both_forms() -> None:
    chat = {"content": [{"token": "a", "logprob": -1.5, "top_logprobs": [{"token": "b", "logprob": -2}]}]}
    old = {"tokens": ["a"], "token_logprobs": [-1.5], "top_logprobs": [{"b": -2}]}
    for choice in ({"delta": {"content": "a"}, "logprobs": chat}, {"text": "a", "logprobs": old}):
        (delta,) = openai.Said(1).take(event(choices=[{"index": 0, **choice}]))
        assert delta == Delta(0, "a", (-1,), (-1.5,), ("a",), (((-1, "b", -2.0),),))


@pytest.mark.parametrize(
    "told",
    [
        {"choices": [{"index": 5, "delta": {"content": "a"}}]},
        {"choices": [{"index": "x", "delta": {}}]},
        {"choices": 7},
        {"error": "boom"},
        {"error": {"message": "boom", "type": "server_error"}},
        [],
    ],
)
def test_what_is_no_answer_is_the_upstreams_failure(told: Any) -> None:
    with pytest.raises(UpstreamFailed):
        openai.Said(1).take(json.dumps(told).encode())


@pytest.mark.parametrize(
    "told",
    [None, 7, {}, {"prompt_tokens": "5"}, {"prompt_tokens": -1}, {"prompt_tokens": 10**12}, {"prompt_tokens": 1.5}],
)
def test_usage_that_cannot_be_meant_is_none(told: Any) -> None:
    assert openai.usage(told) is None


def test_vectors_come_in_the_order_of_their_texts_in_either_form() -> None:
    packed = base64.b64encode(np.array([1, 2], "<f4").tobytes()).decode()
    told = {
        "data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": packed}],
        "usage": {"prompt_tokens": 9},
    }
    found, usage = openai.vectors(json.dumps(told).encode(), 2)
    assert found.tolist() == [[1, 2], [3, 4]]
    assert usage == Usage(prompt_tokens=9)
    assert json.loads(openai.embedding("m", Embed(("a",), dimensions=5)).body)["dimensions"] == 5
    for count in (1, 3):
        with pytest.raises(UpstreamFailed):
            openai.vectors(json.dumps(told).encode(), count)


@pytest.mark.parametrize(
    ("status", "headers", "told", "kind", "others", "well"),
    [
        (400, {}, {"error": {"message": "no", "param": "top_p"}}, WrongValue, False, True),
        (400, {}, {"error": {"message": "no", "code": "context_length_exceeded"}}, PromptTooLong, False, True),
        (400, {}, {"error": {"message": "no", "code": 400, "param": "input_tokens"}}, PromptTooLong, False, True),
        (400, {}, {"error": {"message": "no", "type": "exceed_context_size_error"}}, PromptTooLong, False, True),
        (422, {}, {"error": "no"}, RefusedByEngine, False, True),
        (401, {}, {"error": {"message": "Incorrect API key provided: sk-secret"}}, UpstreamFailed, True, False),
        (404, {}, {}, UpstreamFailed, True, False),
        (302, {"location": "http://169.254.169.254/"}, {}, UpstreamFailed, True, False),
        (429, {"retry-after": "7"}, {}, Overloaded, True, None),
        (503, {"retry-after": "1"}, {}, Overloaded, True, None),
        (503, {}, {}, UpstreamFailed, True, False),
        (500, {}, {"error": "sk-secret"}, UpstreamFailed, True, None),
    ],
)
def test_status_says_whose_fault_it_is_and_whether_others_are_asked(
    status: int, headers: dict[str, str], told: Any, kind: type[TidemillError], others: bool, well: bool | None
) -> None:
    judged = judge(status, httpx.Headers(headers), json.dumps(told).encode(), "upstream 1")
    assert (type(judged.error), judged.others, judged.well) == (kind, others, well)
    assert "sk-secret" not in judged.error.message
    if status == 429:
        assert judged.error.retry_after_s == 7.0
