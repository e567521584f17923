"""What a load of words says: prompts of a length, times of tokens, streams that did not come whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.bench.words import Slo, Words, payloads, told
from tidemill.client.result import Answer


def stream(*events: Any) -> bytes:
    return b"".join(
        b"data: " + (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n\n" for each in events
    )


def whole(prompt: int, completion: int) -> bytes:
    usage = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
    return b": still here\n\n" + stream({"choices": [{"text": "a"}]}, usage, b"[DONE]")


def answer(body: bytes, first_s: float | None, latency_s: float) -> Answer:
    return Answer(0, 200, latency_s, b"", body, first_s=first_s)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 5), st.lists(st.integers(0, 9), min_size=1))
def test_prompts_have_their_length_and_come_from_what_is_known(
    count: int, tokens: int, seed: int, known: list[int]
) -> None:
    made = payloads("m", count, tokens, 7, seed, known)
    prompts = [json.loads(each.body)["prompt"] for each in made]
    assert [len(each) for each in prompts] == [tokens] * count
    assert {token for each in prompts for token in each} <= set(known)
    assert made == payloads("m", count, tokens, 7, seed, known)


def test_times_of_tokens_and_goodput() -> None:
    heard = Words(Slo(ttft_ms=150, tpot_ms=20))
    assert heard.take(answer(whole(8, 11), 0.1, 0.3)) == ""  # 20 ms a token: kept
    assert heard.take(answer(whole(8, 11), 0.2, 0.3)) == ""  # too late with its first
    assert heard.take(answer(whole(8, 11), 0.1, 0.5)) == ""  # too slow
    assert heard.take(answer(whole(8, 1), 0.1, 0.1)) == ""  # one token has no further ones
    found = heard.tokens(2.0)
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens) == (8, 34 / 4)
    assert found.per_second == 17
    assert found.goodput == 1
    assert found.ttft_p99_ms == pytest.approx(200)
    assert found.tpot_p50_ms == pytest.approx(20)
    assert found.tpot_p99_ms == pytest.approx(40)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no events"),
        (stream({"choices": [{"text": "a"}]}), "ended in the middle"),
        (stream({"error": {"message": "x", "code": "engine"}, "code": "engine.failed"}), "engine.failed"),
        (stream({"error": {"message": "x", "code": None}}), "error in the stream"),
        (stream({"choices": []}, b"[DONE]"), "no usage told"),
        (stream(b"[DONE]"), "no usage told"),
        (stream(b"{"), "no usage told"),
        (b'{"choices": []}', "no events"),
    ],
)
def test_a_stream_that_did_not_come_whole_is_none_that_was_answered(body: bytes, said: str) -> None:
    assert told(body) == said
    heard = Words()
    assert heard.take(answer(body, 0.1, 0.2)) == said
    assert heard.tokens(1.0) is None
