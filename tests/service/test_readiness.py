from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving import Server, eventually
from small_models import echo, save, times
from tidemill.assemble.readiness import unready


@dataclass
class Version:
    name: str
    version: int
    state: str


def states(**models: list[str]) -> list[Any]:
    return [Version(name, number + 1, state) for name, known in models.items() for number, state in enumerate(known)]


@pytest.mark.parametrize(
    ("models", "all_of_them", "any_of_them"),
    [
        ({}, [], []),
        ({"a": ["AVAILABLE"]}, [], []),
        ({"a": ["AVAILABLE"], "b": ["FAILED"]}, ["b"], []),
        ({"a": ["AVAILABLE", "FAILED"]}, [], []),
        ({"a": ["FAILED", "LOADING"]}, ["a", "a"], ["a", "a"]),
        ({"a": ["UNLOADING"], "b": ["AVAILABLE"]}, ["a"], []),
    ],
    ids=str,
)
def test_a_model_is_well_when_one_of_its_versions_serves(
    models: dict[str, list[str]], all_of_them: list[str], any_of_them: list[str]
) -> None:
    known = states(**models)
    assert [reason.split()[1] for reason in unready(known, "all")] == all_of_them
    assert [reason.split()[1] for reason in unready(known, "any")] == any_of_them


@pytest.mark.parametrize(("readiness", "status"), [("all", 503), ("any", 200)])
def test_one_refused_model_among_good_ones_is_what_the_setting_says(
    tmp_path: Path, readiness: str, status: int
) -> None:
    echo(tmp_path / "models", "good", "FP32")
    (tmp_path / "models" / "bad" / "1").mkdir(parents=True)
    (tmp_path / "models" / "bad" / "1" / "model.onnx").write_bytes(b"garbage")
    flags = ("--no-auth", "--no-charge", "--readiness", readiness)
    with Server(tmp_path / "models", tmp_path / "data", *flags) as server:
        assert server.client.get("/readyz").status_code == status
        assert server.client.get("/v2/health/ready").status_code == status
        told = server.metrics()
        assert told["tidemill_ready"] == (status == 200)
        assert told['tidemill_model_state{model="good",state="AVAILABLE",version="1"}'] == 1
        assert told['tidemill_model_state{model="bad",state="FAILED",version="1"}'] == 1
        assert told["tidemill_draining"] == 0
        assert 0 < told["tidemill_start_time_seconds"] < 1e11
        assert [name for name in told if name.startswith("tidemill_build_info{")]


CHAIN = """
engine = "ensemble"
inputs = [{name = "x", datatype = "FP32", shape = [-1, 1]}]
outputs = [{name = "x", datatype = "FP32", shape = [-1, 1]}]

[[stage]]
model = "twice"
outputs = {x = "y"}
"""


def test_an_ensemble_is_as_ready_as_its_stages(tmp_path: Path) -> None:
    """A stage is unloaded and comes back, then its folder goes and comes back."""
    models = tmp_path / "models"
    save(models, "twice", times(2))
    (models / "chain").mkdir()
    (models / "chain" / "tidemill.toml").write_text(CHAIN)
    flags = ("--no-auth", "--no-charge", "--watch-s", "0.05")
    with Server(models, tmp_path / "data", *flags) as server:
        ask = server.client

        def ready() -> list[int]:
            paths = ("/readyz", "/v2/models/chain/ready", "/v2/models/chain/versions/1/ready")
            return [ask.get(path).status_code for path in paths]

        def state() -> str:
            told = ask.get("/v1/models/chain").json()["model_version_status"][0]
            return str(told["state"])

        assert (ready(), state()) == ([200] * 3, "AVAILABLE")
        ask.post("/v2/repository/models/twice/unload").raise_for_status()
        assert 200 not in ready()
        assert state() != "AVAILABLE"
        answer = ask.post("/v1/models/chain:predict", json={"instances": [[1.0]]})
        assert (answer.status_code, "its stage 'twice' does not serve" in answer.text) == (503, True)
        (told,) = [each for each in ask.post("/v2/repository/index", json={}).json() if each["name"] == "chain"]
        assert (told["state"], "its stage 'twice'" in told["reason"]) == ("UNAVAILABLE", True)
        ask.post("/v2/repository/models/twice/load").raise_for_status()
        assert (ready(), state()) == ([200] * 3, "AVAILABLE")
        (models / "twice").rename(tmp_path / "twice")
        eventually(lambda: 200 not in ready(), "the ensemble steps back")
        (tmp_path / "twice").rename(models / "twice")
        eventually(lambda: ready() == [200] * 3, "the ensemble returns")
        answer = ask.post("/v1/models/chain:predict", json={"instances": [[1.0]]})
        assert answer.json() == {"predictions": [[2.0]]}
