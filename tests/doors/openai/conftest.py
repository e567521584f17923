from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from fakes import KEY
from speaking import SpeakingServer


@pytest.fixture(scope="module")
def mill() -> Iterator[SpeakingServer]:
    """`mill` speaks, `vectors` embeds, `half` takes tensors."""
    with SpeakingServer() as running:
        yield running


@pytest.fixture
def client(mill: SpeakingServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{mill.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def hello() -> dict[str, Any]:
    return {"model": "mill", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
