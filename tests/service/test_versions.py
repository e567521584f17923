"""Versions that come and go while clients ask: no request fails, and each version answers with its own number."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from serving import Server, eventually, headers_of
from small_models import publish, save, times

WATCH_S = 0.05
ASKERS = 4


@contextlib.contextmanager
def serving(models: Path, data: Path, *flags: str | Path) -> Iterator[Server]:
    with Server(models, data, "--no-auth", "--no-charge", "--watch-s", str(WATCH_S), *flags) as running:
        yield running


def version_of(server: Server, model: str = "m", path: str = "") -> tuple[int, float]:
    """Which version says that it answered, and what it answered to 1."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
    answer = server.client.post(f"/v2/models/{model}{path}/infer", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return int(told["model_version"]), told["outputs"][0]["data"][0]


def serves(server: Server, version: int, model: str = "m") -> None:
    def it_does() -> bool:
        answer = server.client.get(f"/v1/models/{model}")
        return answer.status_code == 200 and {
            (each["version"], each["state"]) for each in answer.json()["model_version_status"]
        } == {(str(version), "AVAILABLE")}

    eventually(it_does, f"{model} is served in version {version} alone")


class Askers:
    """Threads that ask without end, each on a connection of its own, and count what they are told."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(ASKERS)]
        self.answers: Counter[int] = Counter()
        self.wrong: list[Any] = []

    def _ask(self, number: int) -> None:
        value = float(number + 1)
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [value, 2 * value]}]}
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                answer = client.post("/v2/models/m/infer", json=body)
                told = answer.json()
                version = int(told.get("model_version", 0))
                if answer.status_code != 200 or told["outputs"][0]["data"] != [version * value, version * 2 * value]:
                    self.wrong.append((answer.status_code, told))
                else:
                    self.answers[version] += 1

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@pytest.mark.parametrize(
    "replacements", [5, pytest.param(50, marks=pytest.mark.soak)], ids=lambda count: f"{count}-times"
)
def test_replacing_a_version_under_load_fails_no_request_and_mixes_no_answers(
    tmp_path: Path, replacements: int
) -> None:
    models = tmp_path / "models"
    save(models, "m", times(1), 1)
    with serving(models, tmp_path / "data") as server, Askers(server.url) as askers:
        for version in range(1, replacements + 2):
            if version > 1:
                publish(models, "m", version, times(version))
            serves(server, version)
            eventually(lambda version=version: askers.answers[version] > ASKERS, f"version {version} answers")
            if version > 3:
                shutil.rmtree(models / "m" / str(version - 2))
    assert askers.wrong == []
    assert set(askers.answers) == set(range(1, replacements + 2))


def test_request_that_began_on_a_version_is_answered_by_it_though_it_was_replaced_meanwhile(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save(models, "m", times(1), 1)
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]})
    with serving(models, tmp_path / "data") as server, server.connect() as wire:
        wire.send(headers_of("/v2/models/m/infer", len(body)) + body[:10])
        eventually(lambda: server.metrics()["tidemill_connections"] >= 2, "the request has begun")
        publish(models, "m", 2, times(2))
        eventually(lambda: version_of(server) == (2, 2.0), "version 2 answers")
        states = {each["version"]: each["state"] for each in
                  server.client.get("/v1/models/m").json()["model_version_status"]}  # fmt: skip
        assert states == {"1": "UNLOADING", "2": "AVAILABLE"}
        wire.send(body[10:])
        told = orjson.loads(wire.answer().body)
        assert (told["model_version"], told["outputs"][0]["data"]) == ("1", [1.0])
        serves(server, 2)


def test_broken_new_version_leaves_the_service_ready_and_the_old_one_serving(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save(models, "m", times(1), 1)
    with serving(models, tmp_path / "data") as server:
        (models / "m" / "2").mkdir()
        (models / "m" / "2" / "model.onnx").write_bytes(b"garbage")

        def failed() -> bool:
            told = server.client.get("/v1/models/m").json()["model_version_status"]
            return {each["state"] for each in told} == {"AVAILABLE", "END"} or len(told) == 2

        eventually(failed, "version 2 stands as failed")
        assert version_of(server) == (1, 1.0)
        assert server.client.get("/readyz").status_code == 200
        shutil.rmtree(models / "m" / "2")
        serves(server, 1)


def test_models_that_come_into_the_repository_are_served_and_those_that_go_are_not(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save(models, "m", times(1), 1)
    with serving(models, tmp_path / "data") as server:
        publish(models, "new", 7, times(7))
        serves(server, 7, "new")
        assert version_of(server, "new") == (7, 7.0)
        shutil.rmtree(models / "m")
        eventually(lambda: server.client.get("/v2/models/m").status_code == 404, "the model is gone")
        assert version_of(server, "new") == (7, 7.0)


def test_nothing_is_watched_when_that_is_asked_for(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save(models, "m", times(1), 1)
    with Server(models, tmp_path / "data", "--no-auth", "--no-charge", "--watch-s", "0") as server:
        publish(models, "m", 2, times(2))
        assert server.client.get("/v2/models/m/ready").status_code == 200
        assert version_of(server) == (1, 1.0)


def test_policy_of_the_start_line_is_followed(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version in (1, 2, 3):
        save(models, "m", times(version), version)
    with serving(models, tmp_path / "data", "--version-policy", "specific:1,3") as server:
        assert version_of(server, path="/versions/1") == (1, 1.0)
        assert version_of(server) == (3, 3.0)
        assert server.client.get("/v2/models/m/versions/2").status_code == 404
