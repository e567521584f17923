"""Answers that are streamed, byte by byte: their events, their ends, and callers who vanish, stall or wait.

Each is asked of the process that holds the models, and of a front before it.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from fakes import KEY, FakeCharge
from serving import eventually
from speaking import SpeakingServer
from tidemill.core.errors import LedgerUnavailable
from tidemill.core.request import Usage

CHAT = "/v1/chat/completions"
ASKED = {"model": "mill", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "stream": True}
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(params=[False, True], ids=["owner", "front"])
def fronted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def server(fronted: bool) -> Iterator[SpeakingServer]:
    with SpeakingServer(fronted=fronted) as running:
        yield running


def hold(server: SpeakingServer) -> Callable[[], None]:
    """No token comes until what is returned is called."""
    held = asyncio.Event()
    server.generator.held = held
    return lambda: server.call(held.set)


def quiet(server: SpeakingServer) -> None:
    service = server.service
    eventually(lambda: server.generator.running == 0 == service.gate.held, "nothing is under way")


@contextmanager
def reading(server: SpeakingServer, body: dict[str, Any], path: str = CHAT) -> Iterator[httpx.Response]:
    with server.client.stream("POST", path, json=body, headers=HEADERS) as answer:
        yield answer


def events(answer: httpx.Response) -> list[str]:
    """What each event holds."""
    found = answer.read().decode().split("\n\n")
    assert found.pop() == ""
    return [each.removeprefix("data: ") for each in found if not each.startswith(":")]


def test_events_of_a_chat(server: SpeakingServer) -> None:
    with reading(server, ASKED) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-request-id"]
        *told, done = events(answer)
    assert done == "[DONE]"
    chunks = [json.loads(each) for each in told]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in chunk for chunk in chunks)
    quiet(server)
    assert len(server.service.ledger.booked) == 1


def test_words_leave_as_they_come(server: SpeakingServer) -> None:
    """The first words are read while the model is held in the middle of its answer."""
    server.generator.held_after = 3
    release = hold(server)
    with reading(server, ASKED) as answer:
        parts, seen = answer.iter_raw(), b""
        while seen.count(b"content") < 4:
            seen += next(parts)
        release()
        assert b"".join(parts).endswith(b"data: [DONE]\n\n")


def test_caller_that_vanishes_ends_the_work_and_pays_nothing(server: SpeakingServer) -> None:
    release = hold(server)
    for stream in (True, False):
        with (
            httpx.Client(base_url=server.url, headers=HEADERS, timeout=0.2) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.post(CHAT, json=ASKED | {"stream": stream})
        quiet(server)
    release()
    assert server.service.ledger.booked == {}


def test_caller_that_vanishes_in_the_middle(server: SpeakingServer) -> None:
    body = ASKED | {"max_tokens": 4000, "ignore_eos": True}
    with reading(server, body) as answer:
        next(answer.iter_raw())
    quiet(server)
    assert server.service.ledger.booked == {}
    assert server.generator.steps < 4000


def test_engine_that_breaks_midway_is_told_as_an_event(server: SpeakingServer) -> None:
    server.generator.breaks_after = 5
    with reading(server, ASKED) as answer:
        told = [json.loads(each) for each in events(answer)]
    assert told[-1]["error"]["type"] == "server_error"
    assert told[-1]["code"] == "engine.failed"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.APIError, match="broke in the middle"):
            list(client.chat.completions.create(**ASKED))  # type: ignore[call-overload]
        with pytest.raises(openai.APIError, match="broke in the middle"):
            list(client.responses.create(model="mill", input="hello", stream=True))
    quiet(server)
    assert server.service.ledger.booked == {}
    assert server.service.fleet.find("mill").failures == ["engine.failed"] * 3


def test_what_fails_before_the_first_word_has_a_status(server: SpeakingServer) -> None:
    server.generator.breaks_after = 0
    with reading(server, ASKED) as answer:
        assert answer.status_code == 500
        assert json.loads(answer.read())["error"]["code"] == "engine.failed"


def test_silence_is_filled_with_signs_of_life(fronted: bool) -> None:
    with SpeakingServer(fronted=fronted, sse_keep_alive_ms=20) as server:
        release = hold(server)
        with reading(server, ASKED) as answer:
            parts = answer.iter_raw()
            assert next(parts).startswith(b": ")
            assert next(parts).startswith(b": ")
            release()
            assert b"".join(parts).endswith(b"data: [DONE]\n\n")
        release = hold(server)
        threading.Timer(0.1, release).start()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
            chunks = list(client.chat.completions.create(**ASKED))  # type: ignore[call-overload]
        assert chunks[0].choices[0].delta.role == "assistant"


def test_reader_that_stalls_stalls_the_model_and_nobody_else(server: SpeakingServer) -> None:
    body = json.dumps(ASKED | {"max_tokens": 4000, "ignore_eos": True, "n": 16}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        stalled.sendall(head.encode() + body)
        steps = [-2, -1]

        def still() -> bool:
            steps.append(server.generator.steps)
            server.post(CHAT, ASKED | {"stream": False, "max_tokens": 1})
            return steps[-1] > 3 and len(steps) > 10 and steps[-1] - steps[-2] <= 1 >= steps[-2] - steps[-3]

        eventually(still, "the stalled answer stands still")
        assert server.generator.steps < 4000
        assert server.generator.running == 1
    quiet(server)


def test_last_word_waits_for_its_charge(server: SpeakingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    settled, settle = asyncio.Event(), FakeCharge.settle

    async def slowly(self: FakeCharge, usage: Usage) -> None:
        await settled.wait()
        await settle(self, usage)

    monkeypatch.setattr(FakeCharge, "settle", slowly)
    seen = b""
    with reading(server, ASKED | {"max_tokens": 3}) as answer:
        for part in answer.iter_raw():
            seen += part
            if seen.count(b"data:") >= 3 and not settled.is_set():
                assert b'"length"' not in seen
                assert b"[DONE]" not in seen
                server.call(settled.set)
    assert seen.count(b'"length"') == 1
    assert seen.endswith(b"data: [DONE]\n\n")


def test_answer_that_cannot_be_booked_has_no_last_word(server: SpeakingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: FakeCharge, usage: Usage) -> None:
        raise LedgerUnavailable("the disk is gone")

    monkeypatch.setattr(FakeCharge, "settle", never)
    with reading(server, ASKED) as answer:
        *_, last = events(answer)
    assert json.loads(last)["code"] == "ledger.unavailable"
    assert server.post(CHAT, ASKED | {"stream": False}).status_code == 503
    for prompts in (["a"], ["a", "b", "c"]):
        assert server.post("/v1/completions", {"model": "mill", "prompt": prompts}).status_code == 503
    quiet(server)


def test_service_that_goes_down_says_so_in_the_stream() -> None:
    with SpeakingServer(drain_ms=1000) as server:
        with reading(server, ASKED | {"max_tokens": 4000, "ignore_eos": True, "n": 16}) as answer:
            parts = answer.iter_raw()
            seen = next(parts)
            hold(server)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            seen += b"".join(parts)
            stopping.join()
        assert json.loads(seen.split(b"data: ")[-1])["code"] == "admission.draining"
        quiet(server)


def test_service_that_goes_down_before_the_first_word_says_so_too() -> None:
    with SpeakingServer(drain_ms=1000) as server:
        hold(server)
        threading.Timer(0.1, server.stop).start()
        answer = server.post(CHAT, ASKED | {"stream": False})
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
        assert answer.json()["code"] == "admission.draining"


def test_many_streams_half_of_them_cut_at_random_leave_nothing(server: SpeakingServer) -> None:
    chooser = random.Random(7)  # noqa: S311 - to cut, no secret
    alone = [server.post(CHAT, ask(number) | {"stream": False}).json()["choices"][0]["message"] for number in range(20)]
    before = dict(server.service.ledger.booked)

    async def all_of_them() -> list[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, headers=HEADERS, timeout=30, limits=limits) as client:
            return list(await asyncio.gather(*(one(client, number, chooser.randrange(1, 9)) for number in range(60))))

    said = asyncio.run(all_of_them())
    quiet(server)
    assert len(server.service.ledger.booked) - len(before) >= 30
    for number, text in enumerate(said):
        if number % 2 == 0:
            assert text == alone[number % 20]["content"]
    again = [server.post(CHAT, ask(number) | {"stream": False}).json()["choices"][0]["message"] for number in range(20)]
    assert again == alone


def ask(number: int) -> dict[str, Any]:
    return ASKED | {"messages": [{"role": "user", "content": f"hello {number % 20}"}]}


async def one(client: httpx.AsyncClient, number: int, parts: int) -> str:
    """Every second one leaves after some parts."""
    text = ""
    async with client.stream("POST", CHAT, json=ask(number)) as answer:
        async for line in answer.aiter_lines():
            parts -= 1
            if number % 2 and not parts:
                return text
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return text
