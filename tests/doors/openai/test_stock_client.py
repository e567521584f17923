"""OpenAI's own client finds here what it finds there: whole and streamed answers, calls, schemas, vectors, errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import numpy as np
import openai
import pytest
from pydantic import BaseModel

from fake_generator import CONTEXT_TOKENS
from fakes import KEY
from speaking import SpeakingServer, embedding, speaking, vector
from tidemill.core.generation import Generate

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def test_chat(client: openai.OpenAI, hello: Any) -> None:
    said = client.chat.completions.create(**hello)
    assert said.object == "chat.completion"
    assert said.model == "mill"
    assert said.choices[0].message.role == "assistant"
    assert said.choices[0].message.content
    assert said.choices[0].finish_reason == "stop"
    assert said.usage is not None
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    assert said.usage.completion_tokens == len(said.choices[0].message.content.encode()) + 1


def test_streamed_chat_says_what_the_whole_one_does(client: openai.OpenAI, hello: Any) -> None:
    whole = client.chat.completions.create(**hello)
    chunks = list(client.chat.completions.create(**hello, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_without_usage_has_none(client: openai.OpenAI, hello: Any) -> None:
    chunks = list(client.chat.completions.create(**hello, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_async_client_and_many_at_once(mill: SpeakingServer, hello: Any) -> None:
    async with openai.AsyncOpenAI(base_url=f"{mill.url}/v1", api_key=KEY, max_retries=0) as client:

        async def one(number: int) -> str:
            stream = await client.chat.completions.create(**hello | {"max_tokens": 5 + number}, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        said = await asyncio.gather(*(one(number) for number in range(20)))
    assert said[19].startswith(said[0])
    assert [len(each.encode()) <= 5 + number for number, each in enumerate(said)] == [True] * 20


@pytest.mark.parametrize("stream", [False, True])
def test_choices_are_told_apart(client: openai.OpenAI, hello: Any, stream: bool) -> None:
    asked = hello | {"n": 3, "temperature": 1, "seed": 7}
    if not stream:
        choices = client.chat.completions.create(**asked).choices
        assert [each.index for each in choices] == [0, 1, 2]
        assert len({each.message.content for each in choices}) == 3
        return
    found: dict[int, str] = {}
    ends: list[int] = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        choice = chunk.choices[0]
        found[choice.index] = found.get(choice.index, "") + (choice.delta.content or "")
        ends += [choice.index] if choice.finish_reason else []
    assert sorted(ends) == [0, 1, 2]
    whole = client.chat.completions.create(**asked).choices
    assert [found[index] for index in range(3)] == [each.message.content for each in whole]


def test_cut_answers_say_so(client: openai.OpenAI, hello: Any) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        said = client.chat.completions.create(**hello, **{name: 3})
        assert said.choices[0].finish_reason == "length"
        assert said.usage is not None
        assert said.usage.completion_tokens == 3


def test_stop_strings_are_not_told(client: openai.OpenAI, hello: Any) -> None:
    whole = client.chat.completions.create(**hello).choices[0].message.content or ""
    stop = whole[10:13]
    said = client.chat.completions.create(**hello, stop=["never", stop])
    assert said.choices[0].message.content == whole[: whole.index(stop)]
    assert said.choices[0].finish_reason == "stop"


def test_logprobs_of_the_chosen_tokens(client: openai.OpenAI, hello: Any) -> None:
    said = client.chat.completions.create(**hello, logprobs=True, max_tokens=4)
    assert said.choices[0].logprobs is not None
    told = said.choices[0].logprobs.content or []
    assert len(told) == 4
    assert "".join(each.token for each in told) == said.choices[0].message.content
    assert bytes(told[0].bytes or []) == told[0].token.encode()
    chunks = list(client.chat.completions.create(**hello, logprobs=True, max_tokens=4, stream=True))
    shown = [each for chunk in chunks if (found := chunk.choices[0].logprobs) for each in found.content or []]
    assert shown == told


def test_more_logprobs_than_the_model_can_tell_are_refused(client: openai.OpenAI, hello: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="logprob"):
        client.chat.completions.create(**hello, logprobs=True, top_logprobs=3)


def test_one_function_that_must_be_called(client: openai.OpenAI, hello: Any) -> None:
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    for wanted, tools in ((choice, [WEATHER, CLOCK]), ("required", [WEATHER])):
        said = client.chat.completions.create(**hello, tools=tools, tool_choice=wanted)
        assert said.choices[0].finish_reason == "tool_calls"
        assert said.choices[0].message.content is None
        (call,) = said.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "mill", "unit": "C"}


def test_forced_call_is_streamed_argument_by_argument(client: openai.OpenAI, hello: Any) -> None:
    chunks = list(client.chat.completions.create(**hello, tools=[WEATHER], tool_choice="required", stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].id
    assert calls[0].function is not None
    assert calls[0].function.name == "weather"
    assert all(call.index == 0 and call.id is None for call in calls[1:])
    arguments = "".join(call.function.arguments or "" for call in calls if call.function)
    assert json.loads(arguments) == {"city": "mill", "unit": "C"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_one_of_several_functions_must_be_called(client: openai.OpenAI, hello: Any) -> None:
    said = client.chat.completions.create(**hello, tools=[CLOCK, WEATHER], tool_choice="required")
    (call,) = said.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("clock", {})


CALLS = (
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Łódź", "unit": "C"}}\n</tool_call>'
    '<tool_call>{"name": "clock", "arguments": {}}</tool_call>\n'
)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_the_model_chose_to_make(hello: Any, stream: bool) -> None:
    with (
        SpeakingServer(speaking(says=lambda asked: CALLS)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        if stream:
            with client.chat.completions.stream(**hello, tools=[WEATHER, CLOCK]) as events:
                choice: Any = events.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**hello, tools=[WEATHER, CLOCK]).choices[0]
        assert choice.message.content == "Let me see."
        assert choice.finish_reason == "tool_calls"
        told = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
        assert told == [("weather", {"city": "Łódź", "unit": "C"}), ("clock", {})]
        one = client.chat.completions.create(**hello, tools=[WEATHER, CLOCK], parallel_tool_calls=False)
        assert len(one.choices[0].message.tool_calls or []) == 1
        none = client.chat.completions.create(**hello, tools=[WEATHER], tool_choice="none")
        assert none.choices[0].message.tool_calls is None
        assert none.choices[0].message.content == CALLS


def test_what_came_of_a_call_reaches_the_model(client: openai.OpenAI, mill: SpeakingServer, hello: Any) -> None:
    first = client.chat.completions.create(**hello, tools=[WEATHER], tool_choice="required")
    calls = first.choices[0].message.tool_calls or []
    messages = [
        *hello["messages"],
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": [{"type": "text", "text": "rain"}]},
    ]
    client.chat.completions.create(model="mill", messages=messages, tools=[WEATHER])
    asked = mill.generator.asked[-1]
    assert [each["role"] for each in asked.messages] == ["system", "user", "assistant", "user"]  # type: ignore[union-attr]
    words = [each["content"] for each in asked.messages]  # type: ignore[union-attr]
    assert "weather" in words[0]
    assert "<tool_call>" in words[2]
    assert "rain" in words[3]


class Beast(BaseModel):
    name: str
    legs: int
    kind: Literal["fish", "bird"]
    parts: list[str]


def test_parse_gives_an_object_of_the_class(client: openai.OpenAI, hello: Any) -> None:
    said = client.chat.completions.parse(**hello, response_format=Beast)
    assert said.choices[0].message.parsed == Beast(name="mill", legs=7, kind="fish", parts=[])
    response = client.responses.parse(model="mill", input="a beast", text_format=Beast)
    assert response.output_parsed == Beast(name="mill", legs=7, kind="fish", parts=[])


@pytest.mark.parametrize("parallel", [True, False])
def test_answers_of_a_form_and_calls_that_may_be_made_hold_in_one_request(hello: Any, parallel: bool) -> None:
    answers = iter((CALLS, json.dumps({"name": "mill", "legs": 7, "kind": "fish", "parts": []})))
    served = speaking(says=lambda asked: next(answers))
    with (
        SpeakingServer(served) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        asked: dict[str, Any] = {**hello, "tools": [WEATHER, CLOCK], "parallel_tool_calls": parallel}
        shape: Any = {"type": "json_schema", "json_schema": {"name": "beast", "schema": Beast.model_json_schema()}}
        called = client.chat.completions.create(**asked, response_format=shape).choices[0]
        assert called.finish_reason == "tool_calls"
        assert len(called.message.tool_calls or ()) == 1 + parallel
        said = client.chat.completions.create(**asked, response_format=shape).choices[0]
        assert said.message.tool_calls is None
        assert Beast.model_validate_json(said.message.content or "").legs == 7
    for work in server.generator.asked:
        assert isinstance(work, Generate)
        assert work.constraint is not None
        assert json.loads(work.constraint.text) == Beast.model_json_schema()
        names = [each["properties"]["name"]["enum"] for each in json.loads(work.constraint.calls)["anyOf"]]
        assert names == [["weather"], ["clock"]]
        assert work.constraint.parallel is parallel


def test_json_mode(client: openai.OpenAI, hello: Any) -> None:
    said = client.chat.completions.create(**hello, response_format={"type": "json_object"})
    assert json.loads(said.choices[0].message.content or "") == {}


@pytest.mark.parametrize("given", ["tide", ["tide", "mill"], [104, 105], [[104, 105], [106]]])
def test_embeddings(client: openai.OpenAI, given: Any) -> None:
    """The client asks for base64 unless told otherwise, and makes numbers of it."""
    texts = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    wanted = [vector(tuple(each) if isinstance(each, list) else each) for each in texts]
    for more in ({}, {"encoding_format": "float"}):
        told = client.embeddings.create(model="vectors", input=given, **more)  # type: ignore[arg-type]
        np.testing.assert_allclose([each.embedding for each in told.data], wanted, rtol=1e-6)
        assert [each.index for each in told.data] == list(range(len(texts)))
        assert told.usage.prompt_tokens == told.usage.total_tokens == sum(map(len, texts))


def test_fewer_dimensions(client: openai.OpenAI) -> None:
    told = client.embeddings.create(model="vectors", input="tide", dimensions=3)
    assert len(told.data[0].embedding) == 3
    assert np.linalg.norm(told.data[0].embedding) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("stream", [False, True])
def test_completions_of_several_prompts_in_every_form(client: openai.OpenAI, stream: bool) -> None:
    for prompt in ("tide", ["tide", "mill"], list(b"tide"), [list(b"tide"), list(b"mill")]):
        count = 1 if isinstance(prompt, str) or isinstance(prompt[0], int) else 2
        asked: Any = {"model": "mill", "prompt": prompt, "temperature": 0, "max_tokens": 20, "n": 2}
        whole = client.completions.create(**asked)
        assert [each.index for each in whole.choices] == list(range(2 * count))
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 40 * count
        if stream:
            found = [""] * (2 * count)
            options: Any = {"include_usage": True}
            for chunk in client.completions.create(**asked, stream=True, stream_options=options):
                for choice in chunk.choices:
                    found[choice.index] += choice.text
            assert found == [each.text for each in whole.choices]
            assert chunk.usage == whole.usage


def test_echo_and_logprobs_of_completions(client: openai.OpenAI) -> None:
    asked: Any = {"model": "mill", "prompt": "tide", "temperature": 0, "max_tokens": 5}
    plain = client.completions.create(**asked).choices[0].text
    assert client.completions.create(**asked, echo=True).choices[0].text == f"tide{plain}"
    told = client.completions.create(**asked, logprobs=0).choices[0].logprobs
    assert told is not None
    assert "".join(told.tokens or []) == plain
    assert len(told.token_logprobs or []) == len(told.text_offset or []) == 5


def test_responses(client: openai.OpenAI) -> None:
    said = client.responses.create(
        model="mill", input="hello", instructions="Be brief.", temperature=0, max_output_tokens=4
    )
    assert said.status == "incomplete"
    assert said.incomplete_details is not None
    assert said.incomplete_details.reason == "max_output_tokens"
    assert said.instructions == "Be brief."
    whole = client.responses.create(model="mill", input="hello", temperature=0, metadata={"a": "b"}, store=True)
    assert whole.status == "completed"
    assert whole.metadata == {"a": "b"}
    assert whole.usage is not None
    assert whole.usage.output_tokens == len(whole.output_text.encode()) + 1


def test_streamed_response_has_its_events_in_order(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="mill", input="hello", temperature=0)
    with client.responses.stream(model="mill", input="hello", temperature=0) as events:
        seen = [event.type for event in events]
        final = events.get_final_response()
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage
    assert [kind for kind in seen if kind != "response.output_text.delta"] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    numbers = [event.sequence_number for event in client.responses.create(model="mill", input="hello", stream=True)]
    assert numbers == list(range(len(numbers)))


def test_response_that_calls_and_goes_on(client: openai.OpenAI) -> None:
    flat: Any = {"type": "function", "strict": True, **WEATHER["function"]}
    with client.responses.stream(model="mill", input="rain?", tools=[flat], tool_choice="required") as events:
        seen = [event.type for event in events]
        first = events.get_final_response()
    assert "response.function_call_arguments.delta" in seen
    assert "response.function_call_arguments.done" in seen
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "mill", "unit": "C"}
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "rain?"}]},
        *[each.model_dump(exclude_none=True) for each in first.output],
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    again = client.responses.create(model="mill", input=items, tools=[flat])
    assert again.output_text
    more = [
        *items,
        *[each.model_dump(exclude_none=True) for each in again.output],
        {"role": "user", "content": "thanks"},
    ]
    assert client.responses.create(model="mill", input=more).output_text


def test_models_by_name_version_and_label(hello: Any) -> None:
    with (
        SpeakingServer(speaking(version=1), speaking(version=2), embedding()) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        server.service.fleet.labels["stable"] = 1
        assert [each.id for each in client.models.list()] == ["mill", "vectors"]
        assert client.models.retrieve("mill").id == "mill"
        for name, served in (("mill", 2), ("mill@1", 1), ("mill@2", 2), ("mill@stable", 1)):
            said = client.chat.completions.create(**hello | {"model": name})
            assert (said.model, said.system_fingerprint) == (name, f"mill@{served}")
        for name in ("nobody", "mill@7", "mill@never", "mill@", "@1"):
            with pytest.raises(openai.NotFoundError) as refused:
                client.chat.completions.create(**hello | {"model": name})
            assert refused.value.code == "model_not_found"
            assert refused.value.param == "model"


def test_errors_are_the_client_s_own_classes(mill: SpeakingServer, client: openai.OpenAI, hello: Any) -> None:
    with pytest.raises(openai.AuthenticationError) as keyless:
        client.with_options(api_key="wrong").chat.completions.create(**hello)
    assert keyless.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**hello | {"temperature": 3})
    assert (wrong.value.param, wrong.value.code, wrong.value.type) == (
        "temperature", "invalid_value", "invalid_request_error",
    )  # fmt: skip
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="mill", messages=[{"role": "user", "content": "x" * CONTEXT_TOKENS}])
    assert (long.value.param, long.value.code) == ("messages", "context_length_exceeded")


def test_tokenize_and_back(mill: SpeakingServer, hello: Any) -> None:
    told = mill.post("/v1/tokenize", {"model": "mill", "prompt": "größte"}).json()
    assert told == {"count": 8, "max_model_len": CONTEXT_TOKENS, "tokens": list("größte".encode())}
    assert mill.post("/v1/detokenize", {"model": "mill", "tokens": told["tokens"]}).json() == {"prompt": "größte"}
    chat = mill.post("/v1/tokenize", {"model": "mill", "messages": hello["messages"]}).json()
    said = mill.post("/v1/chat/completions", hello).json()
    assert chat["count"] == said["usage"]["prompt_tokens"]


def test_what_is_not_here_is_told_in_openai_s_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.retrieve("resp_1")
    assert unknown.value.code == "request.route"
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="hello")


def test_a_response_may_say_that_it_would_be_cut(client: openai.OpenAI) -> None:
    assert client.responses.create(model="mill", input="the tide", truncation="auto").output_text
