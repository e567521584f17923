"""The kit's language model held to a schema through the whole service: calls that are forced, and answers in JSON."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
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


def test_answers_beside_calls_that_may_be_made_fit_one_schema_or_the_other(words: Server) -> None:
    """Thirty at temperature 1, half of them asked to call: each is calls, or fits the form, and some are either."""
    shape: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}}
    called: Any = {"name": "weather", "arguments": {"city": "Rome", "unit": "C"}}
    lessons = (
        (PARIS[0]["content"], json.dumps({"name": "Paris", "country": "France"})),
        ("How warm is Rome?", f"<tool_call>{json.dumps(called)}</tool_call>"),
    )

    async def thirty() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{words.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(30)))

    async def ask(client: openai.AsyncOpenAI, number: int) -> Any:
        question, answer = lessons[number % 2]
        turn = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return await client.chat.completions.create(
            model="smollm2",
            messages=[*turn, *turn, {"role": "user", "content": question}],  # type: ignore[arg-type]
            tools=[WEATHER, ADD],
            response_format=shape,
            parallel_tool_calls=number % 3 > 0,
            seed=number,
            max_tokens=250,
        )

    makers = {"weather": lambda city, unit: (city, unit in "CF"), "add": lambda a, b: a + b}
    ends = []
    for number, said in enumerate(asyncio.run(thirty())):
        choice = said.choices[0]
        ends.append(choice.finish_reason)
        if choice.finish_reason == "tool_calls":
            assert not choice.message.content
            assert number % 3 or len(choice.message.tool_calls) == 1
            for call in choice.message.tool_calls:
                assert makers[call.function.name](**json.loads(call.function.arguments))
        elif choice.finish_reason == "stop":
            City.model_validate_json(choice.message.content)
    assert {"tool_calls", "stop"} <= set(ends)
    assert ends.count("length") < 15


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


def test_schema_that_nothing_fits_is_refused_at_its_place(asking: openai.OpenAI) -> None:
    never: Any = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 3, "exclusiveMaximum": 3}},
        "required": ["a"],
        "additionalProperties": False,
    }
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": never}}
    shape: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": never}}
    for more, param in (
        ({"response_format": shape}, "response_format.json_schema.schema.properties.a"),
        ({"tools": [tool], "tool_choice": "required"}, "tools[0].function.parameters.properties.a"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            asking.chat.completions.create(model="smollm2", messages=PARIS, max_tokens=20, **more)  # type: ignore[call-overload]
        assert refused.value.param == param


PATTERNS = ("^.{2,30}$", "^[^,]{3,12}$", r"^\S+ \S{2,9}$", r'^"\w{1,9}" \\$', "lo", r"^\W\D{2,5}$")


def test_answers_fit_patterns_and_bounds(words: Server) -> None:
    """Twenty-four calls at temperature 1: each answer is JSON, and what each pattern and bound says is true of it."""

    def schema(number: int) -> Any:
        held: Any = {"type": "string", "pattern": PATTERNS[number % len(PATTERNS)]}
        if held["pattern"] == "lo":
            held["maxLength"] = 20
        share: Any = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
        day: Any = {"type": "string", "format": "date"}
        properties = {"city": held, "share": share, "day": day}
        return {"type": "object", "properties": properties, "required": list(properties)}

    async def all_of_them() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{words.url}/v1", api_key="none", max_retries=0) as client:

            def tool(number: int) -> Any:
                return {"type": "function", "function": {"name": "f", "parameters": schema(number)}}

            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="smollm2",
                        messages=PARIS,
                        tools=[tool(number)],
                        tool_choice="required",
                        seed=number,
                        temperature=1,
                        max_tokens=250,
                    )
                    for number in range(24)
                )
            )

    whole = 0
    for number, said in enumerate(asyncio.run(all_of_them())):
        (call,) = said.choices[0].message.tool_calls
        if said.choices[0].finish_reason == "length":
            continue
        whole += 1
        found = json.loads(call.function.arguments)
        assert re.search(PATTERNS[number % len(PATTERNS)], found["city"]), found
        assert 0 < found["share"] <= 1
        assert datetime.date.fromisoformat(found["day"])
    assert whole >= 20
