"""The kit's models through the whole service: right answers, calls that fit their schema, and what stays afterwards."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import numpy as np
import openai
import pytest

from real_words import asking, words
from serving import Server, eventually, tidemill

__all__ = ["asking", "words"]

pytestmark = pytest.mark.slow

PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]


def test_capital_of_france(asking: openai.OpenAI) -> None:
    said = asking.chat.completions.create(model="smollm2", messages=PARIS, temperature=0)
    assert "Paris" in (said.choices[0].message.content or "")
    chunks = asking.chat.completions.create(model="smollm2", messages=PARIS, temperature=0, stream=True)
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "Paris" in asking.responses.create(model="smollm2", input=PARIS, temperature=0).output_text


def test_a_text_goes_on_after_its_tokens_as_after_itself(words: Server, asking: openai.OpenAI) -> None:
    text = "Größte Flut: 潮水 🌊. The tide"
    told = words.client.post("/v1/tokenize", json={"model": "smollm2", "prompt": text}).json()
    back = words.client.post("/v1/detokenize", json={"model": "smollm2", "tokens": told["tokens"]}).json()
    assert back == {"prompt": text}
    asked: Any = {"model": "smollm2", "temperature": 0, "max_tokens": 8}
    said = [asking.completions.create(prompt=each, **asked).choices[0].text for each in (text, told["tokens"])]
    assert said[0] == said[1]


def test_same_seed_draws_the_same_words(asking: openai.OpenAI) -> None:
    def once(seed: int) -> str | None:
        asked: Any = {"messages": PARIS, "temperature": 1.5, "max_tokens": 16}
        return asking.chat.completions.create(model="smollm2", seed=seed, **asked).choices[0].message.content

    assert once(1) == once(1)


def test_texts_that_mean_alike_are_close(asking: openai.OpenAI) -> None:
    texts = ["The mill turns with the tide.", "Tides drive the mill.", "She bought a red bicycle."]
    one, two, three = (np.array(each.embedding) for each in asking.embeddings.create(model="minilm", input=texts).data)
    assert one @ two > 0.6
    assert one @ three < 0.3
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-3)


def test_200_streams_half_of_them_cut_at_random_leave_nothing_and_all_is_answered_as_before(
    words: Server, asking: openai.OpenAI
) -> None:
    prompts = [f"The number {each} is" for each in range(8)]
    asked: Any = {"model": "smollm2", "temperature": 0, "max_tokens": 10, "extra_body": {"ignore_eos": True}}

    def alone() -> list[str]:
        return [asking.completions.create(prompt=each, **asked).choices[0].text for each in prompts]

    alone()  # what is read is in the cache now
    before = alone()
    dice = random.Random(7)  # noqa: S311 - no secret

    async def all_of_them() -> list[int | None]:
        async with openai.AsyncOpenAI(base_url=f"{words.url}/v1", api_key="none", max_retries=0) as client:
            cuts = [dice.randint(0, 8) if number % 2 else None for number in range(200)]
            return await asyncio.gather(*(one(client, number, cut) for number, cut in enumerate(cuts)))

    async def one(client: openai.AsyncOpenAI, number: int, cut: int | None) -> int | None:
        """Chunks of one that was left to its end."""
        seen = 0
        async with await client.completions.create(prompt=prompts[number % 8], stream=True, **asked) as stream:
            if cut == 0:
                return None
            async for _ in stream:
                seen += 1
                if seen == cut:
                    return None
        return seen

    whole = [seen for seen in asyncio.run(all_of_them()) if seen is not None]
    assert len(whole) >= 100
    assert min(whole) > 0

    def held() -> dict[str, float]:
        """Requests, permits, places in the batch and blocks of the cache."""
        names = ("tidemill_in_flight", "tidemill_waiting", "tidemill_generating", "tidemill_cache_share")
        return {sample: value for sample, value in words.metrics().items() if sample.partition("{")[0] in names}

    assert {each.partition("{")[0] for each in held()} == {
        "tidemill_in_flight", "tidemill_waiting", "tidemill_generating", "tidemill_cache_share"
    }  # fmt: skip
    eventually(lambda: not any(held().values()), "nothing held")
    assert alone() == before


def test_answers_are_booked_by_their_tokens(words: Server, asking: openai.OpenAI) -> None:
    def booked() -> tuple[int, int, int]:
        rows = json.loads(tidemill("usage", "--data-dir", words.data_dir, "--json").stdout)
        mine = [row for row in rows if row["model"] == "smollm2"] or [{}]
        calls, prompts, answers = (mine[0].get(name, 0) for name in ("calls", "prompt_tokens", "completion_tokens"))
        return calls, prompts, answers

    before = booked()
    asked: Any = {"model": "smollm2", "messages": PARIS, "temperature": 0}
    used = [asking.chat.completions.create(**asked).usage]
    options: Any = {"include_usage": True}
    used += [chunk.usage for chunk in asking.chat.completions.create(**asked, stream=True, stream_options=options)]
    told = [each for each in used if each is not None]
    assert len(told) == 2
    after = booked()
    assert after[0] - before[0] == 2
    assert after[1] - before[1] == sum(each.prompt_tokens for each in told)
    assert after[2] - before[2] == sum(each.completion_tokens for each in told)
