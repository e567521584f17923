"""Further names of models, here and behind a gateway, through every door and through fronts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from serving import Server, tidemill
from small_models import lay_out
from tidemill.store import database
from upstreams import DONE, PRICE, STREAM, Upstream, beside, chunk, event, lay

pytestmark = pytest.mark.slow
ALIASES = "gpt-4o=cloud,gpt-4=cloud,zwei=half,lost=nobody"
HI: Any = {"role": "user", "content": "hi"}
USED = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})


class Side:
    def __init__(self, folder: Path, server: Server, upstream: Upstream) -> None:
        self.models = folder / "models"
        self.server = server
        self.upstream = upstream
        self.client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)

    def booked(self, model: str) -> int:
        with closing(database.connect(self.server.data_dir)) as connection:
            count: int = connection.execute("SELECT count(*) FROM charges WHERE model = ?", (model,)).fetchone()[0]
            return count


@pytest.fixture(scope="module", params=["0", "1"], ids=["alone", "fronts"])
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    folder = tmp_path_factory.mktemp("aliases")
    lay_out(folder / "models")
    with beside() as upstream:
        lay(folder / "models", "cloud", upstream.url, protocol="openai", model="vendor-x", price=PRICE, health_s=0.0)
        flags = ("--no-auth", "--fronts", request.param, "--aliases", ALIASES, "half", "cloud")
        with Server(folder / "models", folder / "data", *flags) as server:
            made = Side(folder, server, upstream)
            with made.client:
                yield made


def test_alias_of_a_remote_model_is_answered_booked_and_counted_as_the_model(side: Side) -> None:
    side.upstream.says = [STREAM, chunk(content="mi"), chunk("stop", content="lls"), USED, DONE]
    before = side.booked("cloud")
    said = side.client.chat.completions.create(model="gpt-4o", messages=[HI])
    assert (said.model, said.choices[0].message.content) == ("gpt-4o", "mills")
    assert json.loads(side.upstream.heard[-1].body)["model"] == "vendor-x"
    side.client.chat.completions.create(model="gpt-4o@1", messages=[HI])
    side.client.chat.completions.create(model="cloud", messages=[HI])
    assert side.booked("cloud") == before + 3
    assert side.booked("gpt-4o") == 0
    counted = {
        name: value
        for name, value in side.server.metrics().items()
        if name.startswith("gen_ai_server_request_duration_seconds_count")
    }
    told = {each: value for each in ("gpt-4o", "cloud", "vendor-x", "gpt-4o@1") for name, value in counted.items()
            if f'gen_ai_request_model="{each}"' in name}  # fmt: skip
    assert told == {"gpt-4o": 2, "cloud": 1}
    assert all('gen_ai_response_model="cloud"' in name for name in counted)


def test_alias_of_a_local_model_is_known_to_every_door(side: Side) -> None:
    client = side.server.client
    tensors = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2], "data": [2, 4]}]}
    own = client.post("/v2/models/half/infer", json=tensors)
    other = client.post("/v2/models/zwei/infer", json=tensors)
    assert other.status_code == 200
    assert other.json()["outputs"] == own.json()["outputs"]
    rows = {"instances": [2.0, 4.0]}
    own = client.post("/v1/models/half:predict", json=rows)
    assert client.post("/v1/models/zwei/versions/1:predict", json=rows).json() == own.json()
    assert client.get("/v1/models/zwei").json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert client.get("/v2/models/zwei").json()["name"] == "half"


def test_models_that_are_listed_are_those_that_can_be_asked(side: Side) -> None:
    listed = {each.id: each.model_extra for each in side.client.models.list()}
    assert {name: (more or {}).get("root") for name, more in listed.items()} == {
        "half": None, "cloud": None, "gpt-4o": "cloud", "gpt-4": "cloud", "zwei": "half",
    }  # fmt: skip
    assert (side.client.models.retrieve("gpt-4").model_extra or {})["root"] == "cloud"


def test_alias_of_nobody_says_whose_it_is(side: Side) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'nobody'"):
        side.client.chat.completions.create(model="lost", messages=[HI])


def test_ls_and_show_tell_them(side: Side) -> None:
    there = json.loads(tidemill("ls", "--url", side.server.url, "--json").stdout)
    assert {each["name"]: each["aliases"] for each in there if each["aliases"]} == {
        "cloud": ["gpt-4", "gpt-4o"], "half": ["zwei"],
    }  # fmt: skip
    assert "cloud (gpt-4, gpt-4o)" in tidemill("ls", "--url", side.server.url).stdout
    flags = ("--models", str(side.models), "--aliases", ALIASES)
    assert "half (zwei)" in tidemill("ls", *flags).stdout
    shown = tidemill("show", "zwei", *flags)
    assert shown.returncode == 0
    assert shown.stdout.startswith("half (zwei) version 1")


def test_alias_that_is_a_models_name_is_refused_at_the_start(tmp_path: Path) -> None:
    models = lay_out(tmp_path / "models")
    refused = tidemill(
        "serve", "half", "--models", str(models), "--data-dir", str(tmp_path), "--no-auth", "--aliases", "half=other"
    )
    assert refused.returncode != 0
    assert "'half' is to stand for 'other', and is the name of a model itself" in refused.stderr
