"""`POST /admin/v1/models/{name}/chat`: the whole way of a chat, for admin keys alone."""

from __future__ import annotations

from typing import Any

import pytest

from fakes import ADMIN_KEY, KEY
from speaking import SpeakingServer
from tidemill.core.streamed import DONE, Answer, EventReader

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0}
STREAM = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}


def ask(mill: SpeakingServer, body: Any, path: str = "mill/chat", key: str = ADMIN_KEY, **headers: str) -> Any:
    return mill.post(f"/admin/v1/models/{path}", body, key, **headers)


def test_it_answers_as_the_chat_does_whole_and_streamed(mill: SpeakingServer) -> None:
    usual = mill.post("/v1/chat/completions", {**HELLO, "model": "mill"}).json()
    whole = ask(mill, HELLO).json()
    assert whole["choices"] == usual["choices"]
    assert whole["usage"] == usual["usage"]
    answer, told = Answer(), EventReader().feed(ask(mill, STREAM, "mill/chat?version=1").content)
    assert told.pop() == DONE
    assert "".join(answer.take(each) for each in told) == usual["choices"][0]["message"]["content"]
    assert answer.counted is not None
    assert answer.counted.completion_tokens == usual["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("nobody/chat", HELLO, 404, "model.unknown"),
        ("mill/chat?version=9", HELLO, 404, "model.version_unknown"),
        ("mill/chat?version=x", HELLO, 404, "model.version_unknown"),
        ("half/chat", HELLO, 400, "request.not_offered"),
        ("mill/chat", {**HELLO, "model": "half"}, 400, "input.value"),
        ("mill/chat", {}, 400, "input.missing"),
        ("mill/chat", b"{", 400, "request.malformed"),
    ],
)
def test_what_cannot_be_is_told_in_the_admin_apis_shape(
    mill: SpeakingServer, path: str, body: Any, status: int, code: str
) -> None:
    reply = ask(mill, body, path)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert isinstance(reply.json()["error"], str)


def test_it_wants_an_admin_key_and_refuses_foreign_pages(mill: SpeakingServer) -> None:
    asked = len(mill.generator.asked)
    assert ask(mill, HELLO, key="").json()["code"] == "key.missing"
    assert ask(mill, HELLO, key="tm_nobody").json()["code"] == "key.invalid"
    assert ask(mill, HELLO, key=KEY).json()["code"] == "key.forbidden"
    assert ask(mill, HELLO, origin="http://elsewhere.example").json()["code"] == "key.forbidden"
    assert len(mill.generator.asked) == asked
