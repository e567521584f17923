"""What `/metrics` tells of words and vectors in OpenTelemetry's words, of a model here and of one behind a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import Server
from tidemill.kit.install import install
from upstreams import DONE, STREAM, Upstream, beside, chunk, event, lay, reply, word

pytestmark = pytest.mark.slow
USED = event(choices=[], usage={"prompt_tokens": 31, "completion_tokens": 5, "total_tokens": 36})
HI: Any = {"role": "user", "content": "hi"}
TOKENS = [4**power for power in range(14)]
"""The bounds that the conventions advise."""
SPENT = [round(0.01 * 2**power, 2) for power in range(14)]


class Side:
    """A Tidemill that embeds with MiniLM and asks `upstream` for words."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server = server
        self.upstream = upstream
        self.client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)

    def told(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of `name`: operation, name asked for, model, and what else is told, to their values."""
        found = {}
        for family in text_string_to_metric_families(self.server.client.get("/metrics").text):
            for each in family.samples:
                if each.name == name:
                    labels = dict(each.labels)
                    assert labels.pop("gen_ai_provider_name") == "tidemill"
                    assert labels.pop("version") == "1"
                    assert labels.pop("gen_ai_response_model") == labels["model"]
                    words = [labels.pop(f"gen_ai_{label}") for label in ("operation_name", "request_model")]
                    found[*words, labels.pop("model"), *labels.values()] = each.value
        return found


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    folder = tmp_path_factory.mktemp("gen_ai")
    install(["minilm"], folder / "models")
    with beside() as upstream:
        lay(folder / "models", "cloud", upstream.url, protocol="openai", health_s=0.0, failures_max=1000)
        with Server(folder / "models", folder / "data", "--no-auth") as server:
            made = Side(server, upstream)
            with made.client:
                yield made


def test_requests_are_told_by_operation_and_model_with_their_tokens(side: Side) -> None:
    side.upstream.says = [STREAM, chunk(content="mi"), chunk("stop", content="lls"), USED, DONE]
    side.client.chat.completions.create(model="cloud", messages=[HI])
    side.client.responses.create(model="cloud@1", input="hi")
    side.upstream.says = [STREAM, word("mills", "stop"), USED, DONE]
    side.client.completions.create(model="cloud", prompt="hi")
    vectors = side.client.embeddings.create(model="minilm", input=["a mill", "turns"])
    chat, text = ("chat", "cloud", "cloud"), ("text_completion", "cloud", "cloud")
    embedded = ("embeddings", "minilm", "minilm")
    assert side.told("gen_ai_server_request_duration_seconds_count") == {
        (*chat, ""): 2,
        (*text, ""): 1,
        (*embedded, ""): 1,
    }
    assert side.told("gen_ai_server_time_to_first_token_seconds_count") == {chat: 2, text: 1}
    assert side.told("gen_ai_server_time_per_output_token_seconds_count") == {chat: 2, text: 1}
    assert side.told("gen_ai_client_token_usage_sum") == {
        (*chat, "input"): 62, (*chat, "output"): 10, (*text, "input"): 31, (*text, "output"): 5,
        (*embedded, "input"): vectors.usage.prompt_tokens,
    }  # fmt: skip


def test_a_request_that_fails_is_told_by_its_error_and_has_no_tokens(side: Side) -> None:
    def counted(code: str) -> tuple[float, float]:
        spent = side.told("gen_ai_server_request_duration_seconds_count")
        used = side.told("gen_ai_client_token_usage_count")
        return spent.get(("chat", "cloud", "cloud", code), 0), used.get(("chat", "cloud", "cloud", "input"), 0)

    for says, code in (
        (reply(400, b'{"error": {"message": "no"}}'), "engine.refused"),
        ([STREAM, chunk(content="mi")], "upstream.failed"),
    ):
        side.upstream.says = says
        before = counted(code)
        with pytest.raises(openai.APIError):
            list(side.client.chat.completions.create(model="cloud", messages=[HI], stream=True))
        assert counted(code) == (before[0] + 1, before[1])


def test_bounds_are_those_of_the_conventions_with_others_between(side: Side) -> None:
    side.client.embeddings.create(model="minilm", input="a mill")
    for name, bounds in (("client_token_usage", TOKENS), ("server_request_duration_seconds", SPENT)):
        found = {float(key[-1]) for key in side.told(f"gen_ai_{name}_bucket")}
        assert found > set(bounds)
