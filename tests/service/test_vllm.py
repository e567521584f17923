"""The stock client before the whole service, a model of which runs on vLLM. By `make test-vllm`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

import on_vllm_models
import serving
from serving import Server

pytestmark = [
    pytest.mark.slow,
]

LOAD_S_MAX = 300.0
OPTIONS = """engine = "vllm"
[vllm]
enforce-eager = true
dtype = "float32"
max-num-seqs = 16
"""
FLAGS = ("--no-auth", "--kv-cache-bytes", str(512 * 2**20), "--constraint-ms-max", "20000")
PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]
MODEL: Any = {"model": "smollm2", "temperature": 0}


class Dog(pydantic.BaseModel):
    name: str
    legs: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    (models / "smollm2").mkdir()
    (models / "smollm2" / "tidemill.toml").write_text(OPTIONS)
    (models / "smollm2" / "1").symlink_to(on_vllm_models.smollm2())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "START_S_MAX", LOAD_S_MAX)
        running = Server(models, tmp_path_factory.mktemp("data"), "smollm2", *FLAGS).start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def asking(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_chat_and_stream_say_that_the_capital_is_paris(asking: openai.OpenAI) -> None:
    said = asking.chat.completions.create(messages=PARIS, **MODEL)
    assert "Paris" in (said.choices[0].message.content or "")
    assert said.choices[0].finish_reason == "stop"
    assert said.usage
    chunks = list(
        asking.chat.completions.create(messages=PARIS, stream=True, stream_options={"include_usage": True}, **MODEL)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == said.choices[0].message.content
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == said.usage.completion_tokens


def test_logprobs_of_the_likeliest_others(asking: openai.OpenAI) -> None:
    said = asking.chat.completions.create(messages=PARIS, max_tokens=4, logprobs=True, top_logprobs=3, **MODEL)
    assert said.choices[0].logprobs
    assert said.choices[0].logprobs.content
    for place in said.choices[0].logprobs.content:
        assert len(place.top_logprobs) == 3
        assert place.top_logprobs[0].token == place.token


def test_bias_forbids_a_token(server: Server, asking: openai.OpenAI) -> None:
    asked = {"model": "smollm2", "prompt": " Paris", "add_special_tokens": False}
    (paris,) = server.client.post("/v1/tokenize", json=asked).json()["tokens"]
    said = asking.chat.completions.create(messages=PARIS, max_tokens=16, logit_bias={str(paris): -100}, **MODEL)
    assert " Paris" not in (said.choices[0].message.content or "")


def test_parsed_answer_fits_its_class(asking: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "Describe a dog as JSON."}]
    said = asking.chat.completions.parse(messages=asked, response_format=Dog, max_tokens=200, **MODEL)
    assert isinstance(said.choices[0].message.parsed, Dog)


def test_forced_call_fits_its_schema(asking: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    forced: Any = {"type": "function", "function": {"name": "weather"}}
    asked: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    said = asking.chat.completions.create(messages=asked, tools=[tool], tool_choice=forced, max_tokens=60, **MODEL)
    (call,) = said.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_prompt_that_is_too_long_names_what_to_do(asking: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        asking.completions.create(prompt="tide " * 20_000, max_tokens=4, **MODEL)
    assert refused.value.code == "context_length_exceeded"


def test_metrics_have_the_names_of_every_language_model(server: Server, asking: openai.OpenAI) -> None:
    long = "The tide comes in and the tide goes out. " * 40
    for _ in range(2):
        asking.completions.create(prompt=long, max_tokens=2, **MODEL)
    told = server.client.get("/metrics").text
    for name in (
        "gen_ai_server_time_to_first_token_seconds_count",
        "gen_ai_server_time_per_output_token_seconds_count",
        "gen_ai_client_token_usage_count",
        "tidemill_generating",
        "tidemill_cache_share",
        "tidemill_generate_restarts_total",
    ):
        assert f"{name}{{" in told, name
    cached = [line for line in told.splitlines() if line.startswith("tidemill_cached_tokens") and "smollm2" in line]
    assert any(float(line.rsplit(" ", 1)[1]) >= 128 for line in cached), cached
