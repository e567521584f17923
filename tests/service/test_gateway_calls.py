"""Calls of functions and schemas through a gateway: the stock client before it, and behind it a server that says exact
pieces, another Tidemill and llama.cpp's server."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

import needs
from fakes import KEY
from serving import Server, eventually
from speaking import SpeakingServer, speaking
from tidemill.kit.install import install
from tidemill.store import database, ledger
from upstreams import DONE, PRICE, STREAM, Upstream, beside, chunk, event, lay, reply

pytestmark = pytest.mark.slow
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
RAIN: Any = {"role": "user", "content": "Rain in Łódź?", "name": "miller"}
UNHELD = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}, "even": {"multipleOf": 2, "not": {"const": 4}}},
    "patternProperties": {"^x-": {"type": "string"}},
    "if": {"required": ["next"]},
    "then": {"required": ["even"]},
}
"""Keywords that no model here is held to, and recursion."""


def piece(index: int | None, call_id: str | None = None, name: str | None = None, arguments: str = "") -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    begun = {"id": call_id, "type": "function"} if call_id else {}
    return chunk(tool_calls=[{**({} if index is None else {"index": index}), **begun, "function": function}])


USED = event(choices=[], usage={"prompt_tokens": 31, "completion_tokens": 17, "total_tokens": 48})
CALLED = [
    STREAM,
    chunk(role="assistant", content=None),
    chunk(content="Let me see."),
    piece(0, "call_one", "weather"),
    piece(0, arguments='{"city": '),
    piece(1, "call_two", "clock"),
    piece(0, arguments=' "Łódź"}'),
    piece(1, arguments="{}"),
    chunk("tool_calls"),
    USED,
    DONE,
]
SAID = [STREAM, chunk(content="mills"), chunk("stop"), USED, DONE]
MADE = [("call_one", "weather", '{"city":  "Łódź"}'), ("call_two", "clock", "{}")]


class Gateway:
    """A Tidemill before `upstream`, before Tidemills that speak, and before one that is to be told calls as words."""

    def __init__(self, upstream: Upstream, server: Server) -> None:
        self.upstream = upstream
        self.server = server
        self.client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)

    @property
    def heard(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.upstream.heard[-1].body)
        return found

    def booked(self) -> int:
        with closing(database.connect(self.server.data_dir)) as connection:
            return ledger.total(connection)[0]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    calling = speaking("calling", says=lambda asked: '<tool_call>{"name": "clock", "arguments": {}}</tool_call>')
    with beside() as upstream, SpeakingServer(speaking(), calling) as there:
        models = folder / "models"
        lay(models, "cloud", upstream.url, protocol="openai", price=PRICE, health_s=0.0, failures_max=1000)
        lay(models, "worded", upstream.url, protocol="openai", tools="words", health_s=0.0)
        lay(models, "mill", there.url, protocol="openai", key_env="MILL_KEY", health_s=0.0, tokenizes=True)
        lay(models, "calling", there.url, protocol="openai", key_env="MILL_KEY", health_s=0.0)
        with Server(models, folder / "data", "--no-auth", MILL_KEY=KEY) as server:
            made = Gateway(upstream, server)
            with made.client:
                yield made


@pytest.fixture
def client(gateway: Gateway) -> openai.OpenAI:
    gateway.upstream.says = CALLED
    gateway.upstream.heard.clear()
    return gateway.client


def calls_of(message: Any) -> list[tuple[str, str, str]]:
    return [(each.id, each.function.name, each.function.arguments) for each in message.tool_calls or ()]


@pytest.mark.parametrize("choice", [None, "auto", "none", "required", NAMED])
@pytest.mark.parametrize("parallel", [None, True, False])
def test_functions_reach_the_upstream_as_they_were_asked(
    gateway: Gateway, client: openai.OpenAI, choice: Any, parallel: bool | None
) -> None:
    asked: dict[str, Any] = {
        "messages": [{"role": "developer", "content": "Be brief."}, RAIN],
        "tools": [WEATHER, CLOCK],
    }
    asked |= {} if choice is None else {"tool_choice": choice}
    asked |= {} if parallel is None else {"parallel_tool_calls": parallel}
    said = client.chat.completions.create(model="cloud", **asked)
    names = ("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format")
    assert {name: value for name, value in gateway.heard.items() if name in names} == asked
    assert said.choices[0].finish_reason == "tool_calls"
    assert said.choices[0].message.content == "Let me see."
    assert calls_of(said.choices[0].message) == MADE


def test_calls_are_streamed_piece_by_piece_under_their_index(gateway: Gateway, client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    before = gateway.booked()
    chunks = list(
        client.chat.completions.create(
            model="cloud", messages=[RAIN], tools=[WEATHER, CLOCK], stream=True, stream_options=options
        )
    )
    pieces = [each for one in chunks if one.choices for each in one.choices[0].delta.tool_calls or ()]
    begun = [(each.index, each.id, each.function.name) for each in pieces if each.function and each.id]
    assert begun == [(0, "call_one", "weather"), (1, "call_two", "clock")]
    told = [(each.index, each.function.arguments) for each in pieces if each.function and each.function.arguments]
    assert told == [(0, '{"city": '), (0, ' "Łódź"}'), (1, "{}")]
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "tool_calls"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (31, 17)
    assert gateway.booked() == before + 1
    in_order = [*CALLED[:5], CALLED[6], CALLED[5], *CALLED[7:]]
    gateway.upstream.says = in_order  # as the client's own reader of strict calls wants them
    with client.chat.completions.stream(model="cloud", messages=[RAIN], tools=[WEATHER, CLOCK]) as events:
        assert calls_of(events.get_final_completion().choices[0].message) == MADE


def test_what_came_of_calls_is_told_in_the_next_turn_as_it_was(gateway: Gateway, client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="cloud", messages=[RAIN], tools=[WEATHER, CLOCK])
    gateway.upstream.says = SAID
    kept = first.choices[0].message.model_dump(exclude_none=True)
    results: list[Any] = [{"role": "tool", "tool_call_id": call_id, "content": "rain"} for call_id, _, _ in MADE]
    again = client.chat.completions.create(model="cloud", messages=[RAIN, kept, *results], tools=[WEATHER, CLOCK])
    assert gateway.heard["messages"] == [RAIN, kept, *results]
    assert kept["tool_calls"][0]["function"]["arguments"] == MADE[0][2]
    assert again.choices[0].message.content == "mills"
    assert again.choices[0].finish_reason == "stop"
    silent: Any = {"role": "assistant", "content": None, "tool_calls": kept["tool_calls"]}
    client.chat.completions.create(model="cloud", messages=[RAIN, silent, *results])
    assert gateway.heard["messages"] == [RAIN, silent, *results]
    stray: Any = {"role": "tool", "tool_call_id": "call_nobody", "content": "rain"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="cloud", messages=[RAIN, kept, stray])
    assert refused.value.param == "messages[2].tool_call_id"


def test_responses_call_and_go_on(gateway: Gateway, client: openai.OpenAI) -> None:
    flat: Any = [{"type": "function", **WEATHER["function"]}, {"type": "function", "name": "clock", "parameters": {}}]
    chosen: Any = {"type": "function", "name": "weather"}
    whole = client.responses.create(model="cloud", input="Rain?", tools=flat, tool_choice=chosen)
    assert gateway.heard["tools"][0] == WEATHER
    assert gateway.heard["tool_choice"] == NAMED
    with client.responses.stream(model="cloud", input="Rain?", tools=flat, parallel_tool_calls=True) as events:
        seen = [each.type for each in events]
        final = events.get_final_response()
    assert gateway.heard["parallel_tool_calls"] is True
    assert seen.count("response.function_call_arguments.done") == 2
    for response in (whole, final):
        assert response.status == "completed"
        assert response.output_text == "Let me see."
        calls = [(each.call_id, each.name, each.arguments) for each in response.output if each.type == "function_call"]
        assert calls == MADE
    gateway.upstream.says = SAID
    items: Any = [
        {"role": "user", "content": "Rain?"},
        *[each.model_dump(exclude_none=True) for each in final.output],
        *[{"type": "function_call_output", "call_id": call_id, "output": "rain"} for call_id, _, _ in MADE],
    ]
    assert client.responses.create(model="cloud", input=items, tools=flat).output_text == "mills"
    roles = [each["role"] for each in gateway.heard["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]
    assert [each["function"]["arguments"] for each in gateway.heard["messages"][1]["tool_calls"]] == [
        arguments for _, _, arguments in MADE
    ]


def test_answers_of_a_form_are_asked_for_as_they_were(gateway: Gateway, client: openai.OpenAI) -> None:
    """Beside functions that may be called too, and with keywords that are held nowhere here."""
    gateway.upstream.says = SAID
    shaped: dict[str, Any] = {"name": "beast", "description": "Any.", "schema": UNHELD, "strict": False}
    for wanted in (
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": shaped},
        {"type": "json_schema", "json_schema": {"name": "beast", "schema": UNHELD}},
        {"type": "json_schema", "json_schema": {"name": "beast", "schema": UNHELD, "strict": True}},
    ):
        client.chat.completions.create(model="cloud", messages=[RAIN], response_format=wanted, tools=[CLOCK])  # type: ignore[call-overload]
        assert gateway.heard["response_format"] == wanted
        assert gateway.heard["tools"] == [CLOCK]
    flat: Any = {"format": {"type": "json_schema", **shaped}}
    client.responses.create(model="cloud", input="A beast", text=flat)
    assert gateway.heard["response_format"]["json_schema"] == shaped


def test_schemas_of_others_are_bounded_all_the_same(gateway: Gateway, client: openai.OpenAI) -> None:
    deep: Any = {"type": "string"}
    for _ in range(70):
        deep = {"not": deep}
    for schema, told in ((deep, "nested deeper than 32"), ({"const": "x" * 70_000}, "at most 65536"), (7, "an object")):
        function: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        for more, param in (
            ({"tools": [function]}, "tools[0].function.parameters"),
            ({"response_format": wanted}, "response_format.json_schema.schema"),
        ):
            with pytest.raises(openai.BadRequestError, match=told) as refused:
                client.chat.completions.create(model="cloud", messages=[RAIN], **more)  # type: ignore[call-overload]
            assert refused.value.param == param
    assert gateway.upstream.asked == 0


def test_refusal_is_told_with_the_upstreams_words_and_costs_nothing(gateway: Gateway, client: openai.OpenAI) -> None:
    told = {"error": {"message": "tools need a parser", "type": "invalid_request_error", "param": "tools"}}
    gateway.upstream.says = reply(400, json.dumps(told).encode())
    before = gateway.booked()
    with pytest.raises(openai.BadRequestError, match="tools need a parser") as refused:
        client.chat.completions.create(model="cloud", messages=[RAIN], tools=[CLOCK], stream=True)
    assert refused.value.param == "tools"
    assert gateway.booked() == before


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param([piece(0, "call_one")], id="without a name"),
        pytest.param([piece(3, arguments="{}")], id="that never began"),
        pytest.param([chunk(tool_calls=7)], id="no list"),
        pytest.param([chunk(tool_calls=[{"index": "x", "function": {"name": "f"}}])], id="no index"),
        pytest.param([chunk(tool_calls=[{"function": {"name": "f", "arguments": {}}}])], id="no text"),
    ],
)
def test_calls_that_are_none_are_the_upstreams_failure(
    gateway: Gateway, client: openai.OpenAI, broken: list[bytes]
) -> None:
    gateway.upstream.says = [STREAM, *broken, chunk("tool_calls"), DONE]
    with pytest.raises(openai.InternalServerError, match="cannot be read"):
        client.chat.completions.create(model="cloud", messages=[RAIN], tools=[CLOCK])


def test_choice_of_a_stream_that_breaks_off_within_a_call_is_an_error_and_not_booked(
    gateway: Gateway, client: openai.OpenAI
) -> None:
    gateway.upstream.says = CALLED[:5]
    before = gateway.booked()
    with pytest.raises(openai.APIError, match="ended in the middle"):
        list(client.chat.completions.create(model="cloud", messages=[RAIN], tools=[WEATHER], stream=True))
    assert gateway.booked() == before


def test_calls_that_nobody_counted_are_counted_here(gateway: Gateway, client: openai.OpenAI) -> None:
    gateway.upstream.says = [each for each in CALLED if each != USED]
    said = client.chat.completions.create(model="cloud", messages=[RAIN], tools=[WEATHER, CLOCK])
    assert said.usage is not None
    spoken = "Let me see.weather" + MADE[0][2] + "clock{}"
    assert said.usage.completion_tokens == -(-len(spoken.encode()) // 4)
    assert said.usage.prompt_tokens > len(json.dumps([WEATHER, CLOCK])) // 5


def test_functions_may_be_put_into_words_for_upstreams_that_know_none(gateway: Gateway, client: openai.OpenAI) -> None:
    call = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'
    gateway.upstream.says = [STREAM, chunk(content=call), chunk("stop"), USED, DONE]
    said = client.chat.completions.create(model="worded", messages=[RAIN], tools=[CLOCK])
    assert "tools" not in gateway.heard
    assert "clock" in gateway.heard["messages"][0]["content"]
    assert [name for _, name, _ in calls_of(said.choices[0].message)] == ["clock"]
    assert said.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_another_tidemill_calls_through_the_gateway(gateway: Gateway, client: openai.OpenAI, stream: bool) -> None:
    def ask(model: str, **more: Any) -> Any:
        if not stream:
            return client.chat.completions.create(model=model, messages=[RAIN], **more).choices[0]
        with client.chat.completions.stream(model=model, messages=[RAIN], **more) as events:
            return events.get_final_completion().choices[0]

    free = ask("calling", tools=[WEATHER | {"function": WEATHER["function"]}, CLOCK])
    assert [(name, arguments) for _, name, arguments in calls_of(free.message)] == [("clock", "{}")]
    assert free.finish_reason == "tool_calls"
    for choice in ("required", NAMED):
        forced = ask("mill", tools=[WEATHER], tool_choice=choice)
        ((_, name, arguments),) = calls_of(forced.message)
        assert (name, json.loads(arguments)) == ("weather", {"city": "mill"})
    with pytest.raises(openai.BadRequestError, match="recurses"):
        client.chat.completions.create(
            model="mill",
            messages=[RAIN],
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": UNHELD}},
        )


def test_tokens_that_are_refused_name_the_field_there_and_here(gateway: Gateway) -> None:
    def ask(path: str, **body: Any) -> dict[str, Any]:
        told: dict[str, Any] = gateway.server.client.post(f"/v1/{path}", json=body).json()
        return told.get("error", told)  # type: ignore[no-any-return]

    found = ask("tokenize", model="mill", prompt="größte")
    assert ask("detokenize", model="mill", tokens=found["tokens"]) == {"prompt": "größte"}
    assert ask("detokenize", model="mill", tokens=[10**6])["param"] == "tokens[0]"
    assert ask("detokenize", model="mill", tokens=["x"])["param"] == "tokens[0]"
    assert ask("tokenize", model="mill")["param"] == "prompt"
    for path, body in (("tokenize", {"prompt": "x"}), ("detokenize", {"tokens": [1]})):
        refused = ask(path, model="cloud", **body)
        assert (refused["code"], refused["param"]) == ("unsupported_parameter", "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A Tidemill before llama.cpp's server with SmolLM2, as `assistant`."""
    program = needs.llama_server()
    folder = tmp_path_factory.mktemp("llama")
    (gguf,) = install(["smollm2"], folder / "there")[0].rglob("*.gguf")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--jinja", "--ctx-size", "4096", "--threads", "2", "--parallel", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-m", gguf, "--host", "127.0.0.1", "--port", str(port), *flags], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"

    def well() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(well, "llama.cpp's server is ready", 60)
        lay(folder / "models", "assistant", url, protocol="openai", health_s=0.0)
        with (
            Server(folder / "models", folder / "data", "--no-auth") as server,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made,
        ):
            yield made
    finally:
        process.terminate()
        process.wait(20)


class City(BaseModel):
    name: str
    country: str


@pytest.mark.soak
def test_llama_cpp_takes_functions_calls_and_what_came_of_them(llama: openai.OpenAI) -> None:
    """SmolLM2's template tells no functions, so none is called: what is sent is taken, and answered in words."""
    asked: dict[str, Any] = {"model": "assistant", "temperature": 0, "max_tokens": 12, "tools": [WEATHER, CLOCK]}
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    messages: list[Any] = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": "Rain all day."},
        {"role": "user", "content": "Shall I stay at home?"},
    ]
    whole = llama.chat.completions.create(messages=messages, parallel_tool_calls=False, **asked)
    chunks: Any = llama.chat.completions.create(messages=messages, tool_choice="none", stream=True, **asked)
    told = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert whole.choices[0].message.content == told
    assert told


@pytest.mark.soak
def test_llama_cpp_answers_in_a_form_through_the_gateway(llama: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "What is the capital of France?"}
    said = llama.chat.completions.parse(
        model="assistant", messages=[question], response_format=City, max_tokens=100, temperature=0
    )
    assert isinstance(said.choices[0].message.parsed, City)
