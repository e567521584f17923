from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from fakes import KEY
from speaking import SpeakingServer


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpeakingServer]:
    """Runs batches; small bounds, so that tests reach them."""
    folder = tmp_path_factory.mktemp("data")
    with SpeakingServer(
        batches=True,
        data_dir=folder,
        file_bytes_max=200_000,
        words_body_bytes_max=20_000,
        batch_lines_max=200,
        batch_tries=2,
    ) as running:
        yield running


@pytest.fixture
def client(mill: SpeakingServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{mill.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made
