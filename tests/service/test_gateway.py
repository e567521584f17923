"""One Tidemill before others: real processes, killed for real, and a small model that speaks behind the real door."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from fakes import KEY
from serving import Server, eventually, tidemill
from small_models import lay_out
from speaking import SpeakingServer
from tidemill.kit.install import install
from tidemill.store import database, ledger
from upstreams import PRICE, lay

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the upstreams serve."""
    folder = lay_out(tmp_path_factory.mktemp("there"))
    install(["minilm"], folder)
    return folder


@pytest.fixture(scope="module")
def speaking() -> Iterator[SpeakingServer]:
    with SpeakingServer() as server:
        yield server


class Gateway:
    """A Tidemill before two others and before one that speaks."""

    def __init__(self, there: Path, speaking: SpeakingServer, folder: Path) -> None:
        self.there, self.folder = there, folder
        self.upstreams = [self.upstream(number) for number in range(2)]
        self._stack = ExitStack()
        self.speaking = speaking

    def upstream(self, number: int, port: int = 0) -> Server:
        models = ("half", "poison", "minilm")
        return Server(self.there, self.folder / f"data{number}", "--no-auth", "--http-port", str(port), *models)

    def __enter__(self) -> Gateway:
        for each in self.upstreams:
            self._stack.enter_context(each)
        urls = [each.url for each in self.upstreams]
        models = self.folder / "models"
        lay(models, "half", *urls, protocol="v2", health_s=0.2, pause_s=0.5, failures_max=1)
        lay(models, "half-tfs", *urls, protocol="tfserving", model="half", health_s=0.2, pause_s=0.5)
        lay(models, "poison", *urls, protocol="v2", failures_max=1)
        lay(models, "embed-small", *urls, protocol="openai", model="minilm", generates=False, embeds=True, price=PRICE)
        lay(
            models,
            "gpt-4o",
            self.speaking.url + "/v1",
            protocol="openai",
            model="mill",
            key_env="MILL_KEY",
            price=PRICE,
        )
        self.server = self._stack.enter_context(
            Server(models, self.folder / "data", "--no-auth", "--call-nanos", "7", MILL_KEY=KEY)
        )
        self.client = openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="unused", max_retries=0)
        self._stack.enter_context(closing(self.client))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def booked(self, model: str) -> list[ledger.ChargeRow]:
        with closing(database.connect(self.folder / "data")) as connection:
            found = connection.execute("SELECT DISTINCT request_id FROM charges WHERE model = ?", (model,)).fetchall()
            return [row for (request_id,) in found for row in ledger.charges(connection, request_id)]


@pytest.fixture(scope="module")
def gateway(there: Path, speaking: SpeakingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(there, speaking, tmp_path_factory.mktemp("gateway")) as made:
        yield made


HALF = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2], "data": [1, 3]}]}


def half(server: Server, model: str) -> httpx.Response:
    return server.predict(model, {"inputs": [1, 3]}) if model == "half-tfs" else server.infer(model, HALF)


@pytest.mark.parametrize("model", ["half", "half-tfs"])
def test_tensors_are_answered_by_the_upstreams_through_every_door(gateway: Gateway, model: str) -> None:
    server = gateway.server
    for _ in range(4):
        told = server.predict(model, {"inputs": [1, 3]})
        assert told.json() == {"outputs": [0.5, 1.5]}, told.text
        told = server.infer(model, HALF)
        assert told.json()["outputs"][0]["data"] == [0.5, 1.5], told.text
    assert server.client.get(f"/v2/models/{model}").json()["inputs"][0]["datatype"] == "FP32"
    assert {row.nanos for row in gateway.booked(model)} == {7}


def test_refusal_of_an_upstream_reaches_the_caller_and_shuts_nobody_out(gateway: Gateway) -> None:
    def ask(x: int) -> httpx.Response:
        return gateway.server.infer(
            "poison", {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [x]}]}
        )

    for _ in range(4):
        refused = ask(99)
        assert (refused.status_code, refused.json()["code"]) == (400, "engine.refused")
        assert ask(3).json()["outputs"][0]["data"] == [30]


def test_chat_streams_from_the_upstream_and_is_booked_by_its_tokens(gateway: Gateway) -> None:
    words = [{"role": "user", "content": "What turns the mill?"}]
    asked = len(gateway.speaking.generator.asked)
    told = gateway.client.chat.completions.create(model="gpt-4o", messages=words, temperature=0)  # type: ignore[arg-type]
    assert told.choices[0].message.content
    assert told.choices[0].finish_reason == "stop"
    chunks = list(
        gateway.client.chat.completions.create(
            model="gpt-4o", messages=words, temperature=0, stream=True, stream_options={"include_usage": True}
        )  # type: ignore[call-overload]
    )
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == told.choices[0].message.content
    used = chunks[-1].usage
    assert (used.prompt_tokens, used.completion_tokens) == (told.usage.prompt_tokens, told.usage.completion_tokens)
    assert used.completion_tokens > 3
    nanos = 1 + 150 * used.prompt_tokens + 600 * used.completion_tokens
    assert [row.nanos for row in gateway.booked("gpt-4o")] == [nanos] * 2
    assert len(gateway.speaking.generator.asked) == asked + 2


def test_caller_that_leaves_ends_the_upstreams_work(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = gateway.speaking.generator
    monkeypatch.setattr(generator, "held", asyncio.Event())
    monkeypatch.setattr(generator, "held_after", 3)
    before = len(gateway.booked("gpt-4o"))
    body = {"model": "gpt-4o", "prompt": "tide", "max_tokens": 30, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{gateway.server.url}/v1/completions", json=body, timeout=20) as answer:
        next(answer.iter_bytes())
    eventually(lambda: not generator.running, "the upstream stops")
    assert len(gateway.booked("gpt-4o")) == before


def test_vectors_are_the_upstreams_own(gateway: Gateway) -> None:
    texts = ["The mill turns.", "Water drives the wheel.", "A bank lends money."]
    told = gateway.client.embeddings.create(model="embed-small", input=texts)
    vectors = np.array([each.embedding for each in told.data])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    (row,) = gateway.booked("embed-small")
    assert (row.rows, row.prompt_tokens, row.nanos) == (3, told.usage.prompt_tokens, 1 + 150 * told.usage.prompt_tokens)


def test_upstream_that_is_killed_under_load_costs_no_caller_an_answer(gateway: Gateway) -> None:
    """Goal: kill -9 of one of two upstreams, and its return, are seen by nobody. Method: many callers all the while."""
    server, (one, _) = gateway.server, gateway.upstreams
    _, port = one.address

    def ask(number: int) -> int:
        if number == 60:
            one.process.send_signal(signal.SIGKILL)
        return half(server, ("half", "half-tfs")[number % 2]).status_code

    with ThreadPoolExecutor(6) as callers:
        statuses = list(callers.map(ask, range(300)))
    assert statuses == [200] * 300
    one.ended()
    assert "is left alone" in server.stderr()
    metrics, where = server.metrics(), 'model="half",upstream="1",version="1"'
    assert metrics[f"tidemill_upstream_up{{{where}}}"] == 0
    assert (
        metrics[f"tidemill_upstream_requests_total{{{where}}}"]
        >= metrics[f"tidemill_upstream_failures_total{{{where}}}"]
        >= 1
    )
    with gateway.upstream(7, port) as again:
        eventually(lambda: server.stderr().count("is back") >= 2, "the upstream is back")
        served = again.metrics().get('tidemill_requests_total{model="half",version="1"}', 0.0)
        for _ in range(6):
            assert half(server, "half").status_code == 200
        after = again.metrics()['tidemill_requests_total{model="half",version="1"}']
        assert after - served == 3


def test_without_any_upstream_the_error_says_so_and_nothing_is_booked(there: Path, tmp_path: Path) -> None:
    with Server(there, tmp_path / "there", "--no-auth", "half") as one:
        lay(tmp_path / "models", "half", one.url, protocol="v2", health_s=0.0)
        with Server(tmp_path / "models", tmp_path / "data", "--no-auth") as server:
            assert half(server, "half").status_code == 200
            one.kill()
            eventually(
                lambda: half(server, "half").status_code == 502, "nobody is left"
            )  # its fronts outlive it a moment
            told = half(server, "half")
            assert (told.status_code, told.json()["code"]) == (502, "upstream.failed")
            assert one.url not in told.text
    with closing(database.connect(tmp_path / "data")) as connection:
        assert ledger.total(connection)[0] == 1


def test_show_tells_who_answers(gateway: Gateway, tmp_path: Path) -> None:
    lay(tmp_path, "half", gateway.upstreams[1].url, protocol="v2")
    (told,) = json.loads(tidemill("show", "half", "--models", tmp_path, "--json").stdout)
    assert (told["engine"], told["upstreams"]) == ("remote", [gateway.upstreams[1].url])
    assert told["inputs"][0]["name"] == "input"


def test_key_that_is_missing_refuses_the_model_by_its_name(tmp_path: Path) -> None:
    lay(tmp_path, "gpt-4o", "http://127.0.0.1:1", protocol="openai", key_env="NOT_THERE")
    (told,) = json.loads(tidemill("ls", "--models", tmp_path, "--json").stdout)
    assert told["name"] == "gpt-4o"
    shown = tidemill("show", "gpt-4o", "--models", tmp_path)
    assert shown.returncode
    assert "NOT_THERE" in shown.stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A Tidemill that serves SmolLM2, and one before it."""
    folder = tmp_path_factory.mktemp("real")
    install(["smollm2"], folder / "there")
    flags = ("--kv-cache-bytes", str(256 * 2**20))
    with Server(folder / "there", folder / "data-there", "--no-auth", *flags) as one:
        lay(folder / "models", "assistant", one.url, protocol="openai", model="smollm2", price=PRICE, health_s=0.0)
        with Server(folder / "models", folder / "data", "--no-auth") as server:
            yield one, server


def test_a_real_language_model_says_the_same_through_the_gateway(real: tuple[Server, Server]) -> None:
    one, server = real
    body = {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_tokens": 24,
    }
    told = [
        each.client.post("/v1/chat/completions", json={"model": model, **body}).json()
        for each, model in ((one, "smollm2"), (server, "assistant"))
    ]
    assert "Paris" in told[1]["choices"][0]["message"]["content"]
    assert told[0]["choices"] == told[1]["choices"]
    counts = [{name: each["usage"][name] for name in ("prompt_tokens", "completion_tokens")} for each in told]
    assert counts[0] == counts[1]


def test_a_real_language_model_that_is_killed_in_the_middle_breaks_off_clearly_and_uncharged(
    real: tuple[Server, Server],
) -> None:
    one, server = real
    body = {"model": "assistant", "prompt": "The mill", "max_tokens": 500, "stream": True, "ignore_eos": False}
    with closing(database.connect(server.data_dir)) as connection:
        before = ledger.total(connection)
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if line.startswith("data: "))
            one.kill()
            last = [line for line in lines if line.startswith("data: ")][-1]
        assert json.loads(first.removeprefix("data: "))["choices"]
        assert json.loads(last.removeprefix("data: "))["code"] == "upstream.failed"
        told = server.client.post("/v1/completions", json={**body, "stream": False})
        assert (told.status_code, told.json()["code"]) == (502, "upstream.failed")
        assert ledger.total(connection) == before
