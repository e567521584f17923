"""V2's generate extension: a text in, a text out, whole and as events; refusals in V2's shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from speaking import SpeakingServer, speaking

PATH = "/v2/models/mill/generate"


@pytest.fixture(scope="module", params=[False, True], ids=["owner", "front"])
def server(request: pytest.FixtureRequest) -> Iterator[SpeakingServer]:
    with SpeakingServer(speaking(version=1), speaking(version=2), fronted=request.param) as running:
        yield running


def asked(**parameters: Any) -> dict[str, Any]:
    return {"id": "7", "text_input": "the tide", "parameters": {"temperature": 0, **parameters}}


def test_whole_text(server: SpeakingServer) -> None:
    told = server.post(PATH, asked()).json()
    text = told.pop("text_output")
    assert text
    assert told == {
        "id": "7", "model_name": "mill", "model_version": "2", "finish_reason": "stop",
        "prompt_tokens": 8, "completion_tokens": len(text.encode()) + 1,
    }  # fmt: skip
    assert "id" not in server.post(PATH, {"text_input": "the tide"}).json()


def test_version_is_the_one_in_the_address(server: SpeakingServer) -> None:
    told = server.post("/v2/models/mill/versions/1/generate", asked()).json()
    assert told["model_version"] == "1"


def test_events_add_up_to_the_whole(server: SpeakingServer) -> None:
    whole = server.post(PATH, asked(max_tokens=9)).json()
    answer = server.post(f"{PATH}_stream", asked(max_tokens=9))
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(each.removeprefix("data: ")) for each in answer.text.split("\n\n") if each]
    assert "".join(each["text_output"] for each in told) == whole["text_output"]
    assert told[-1] | {"text_output": whole["text_output"]} == whole
    assert all("finish_reason" not in each for each in told[:-1])


def test_parameters_reach_the_model(server: SpeakingServer) -> None:
    whole = server.post(PATH, asked()).json()["text_output"]
    stop = whole[5:8]
    assert server.post(PATH, asked(stop=stop)).json()["text_output"] == whole[: whole.index(stop)]


def test_parameters_may_stand_beside_the_text(server: SpeakingServer) -> None:
    flat = {"id": "7", "text_input": "the tide", "temperature": 0, "max_tokens": 9, "stream": False}
    assert server.post(PATH, flat).json() == server.post(PATH, asked(max_tokens=9)).json()
    assert server.post(PATH, flat | {"stream": True}).json()["code"] == "request.not_offered"
    assert server.post(PATH, flat | {"colour": 9}).json()["code"] == "input.unknown"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PATH, {}, 400, "input.missing"),
        (PATH, {"text_input": ""}, 400, "input.value"),
        (PATH, {"text_input": 7}, 400, "input.datatype"),
        (PATH, {"text_input": "x", "parameters": {"temperature": 9}}, 400, "input.value"),
        (PATH, {"text_input": "x", "parameters": {"colour": 9}}, 400, "input.unknown"),
        (PATH, {"text_input": "x", "parameters": {"stream": True}}, 400, "request.not_offered"),
        (PATH, {"text_input": "x" * 5000}, 400, "input.too_long"),
        ("/v2/models/nobody/generate", {"text_input": "x"}, 404, "model.unknown"),
        ("/v2/models/mill/versions/7/generate", {"text_input": "x"}, 404, "model.version_unknown"),
        (f"{PATH}_stream", {}, 400, "input.missing"),
    ],
)
def test_refusals_have_v2_s_shape(server: SpeakingServer, path: str, body: Any, status: int, code: str) -> None:
    answer = server.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert isinstance(answer.json()["error"], str)
    assert ("param" in answer.json()) == (status == 400)
    assert server.post(path, body, key="").status_code == 401
