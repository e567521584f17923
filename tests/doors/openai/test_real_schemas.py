"""The kit's language model held to a schema through the whole service: calls that are forced, and answers in JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from real_words import asking, words
from serving import Server, eventually

__all__ = ["asking", "words"]

pytestmark = pytest.mark.slow

PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]
CITIES = ("Oslo", "Lagos", "Lima", "Kyoto", "Quito")
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    name: str
    country: str


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_fifty_forced_calls_fit_their_schema(words: Server, choice: Any) -> None:
    async def fifty() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{words.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="smollm2",
                        messages=[{"role": "user", "content": f"How warm is {CITIES[number % 5]} today?"}],
                        tools=[WEATHER, ADD],
                        tool_choice=choice,
                        seed=number,
                        max_tokens=200,
                    )
                    for number in range(50)
                )
            )

    for said in asyncio.run(fifty()):
        assert said.choices[0].finish_reason == "tool_calls"
        (call,) = said.choices[0].message.tool_calls
        arguments = json.loads(call.function.arguments)
        if call.function.name == "add":
            assert choice == "required"
            assert {name: type(value) for name, value in arguments.items()} == {"a": int, "b": int}
        else:
            assert set(arguments) == {"city", "unit"}
            assert isinstance(arguments["city"], str)
            assert arguments["unit"] in ("C", "F")
    eventually(lambda: words.in_flight == 0, "nothing in flight")


def test_parse(asking: openai.OpenAI) -> None:
    said = asking.chat.completions.parse(
        model="smollm2", messages=PARIS, response_format=City, temperature=0, max_tokens=100
    )
    assert isinstance(said.choices[0].message.parsed, City)
    response = asking.responses.parse(
        model="smollm2", input=PARIS, text_format=City, temperature=0, max_output_tokens=100
    )
    assert isinstance(response.output_parsed, City)


def test_json_mode(asking: openai.OpenAI) -> None:
    said = asking.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the capital of France? Answer in JSON with one key, capital."}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=200,
    )
    assert isinstance(json.loads(said.choices[0].message.content or ""), dict)


def test_schema_that_the_engine_cannot_compile_is_refused_by_its_field(asking: openai.OpenAI) -> None:
    never: Any = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 3, "exclusiveMaximum": 3}},
        "required": ["a"],
        "additionalProperties": False,
    }
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": never}}
    shape: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": never}}
    for more, param in (
        ({"response_format": shape}, "response_format"),
        ({"tools": [tool], "tool_choice": "required"}, "tools"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            asking.chat.completions.create(model="smollm2", messages=PARIS, max_tokens=20, **more)  # type: ignore[call-overload]
        assert refused.value.param == param
