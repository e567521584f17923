"""The real service over the kit's language model and sentence encoder, for tests that want real words."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from serving import Server
from tidemill.core.places import cache_dir
from tidemill.kit.install import install

NAMES = ("smollm2", "minilm")
PATIENT = ("--constraint-ms-max", "20000")
"""A machine that runs tests may be busy."""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`smollm2` and `minilm`, no keys, every answer booked."""
    models = cache_dir() / "models-of-tests"
    install(list(NAMES), models)
    with Server(models, tmp_path_factory.mktemp("data"), *NAMES, *PATIENT, "--no-auth") as running:
        yield running


@pytest.fixture
def asking(words: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{words.url}/v1", api_key="none", max_retries=0) as client:
        yield client
