"""Versions that come and go while clients ask: no request fails, and each version answers with its own number."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from serving import Server, eventually, headers_of, tidemill
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
    "replacements",
    [pytest.param(5, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.soak)],
    ids=lambda count: f"{count}-times",
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


def test_operators_load_unload_and_move_labels_over_the_admin_api_and_the_command_line(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version in (1, 2):
        save(models, "m", times(version), version)
    save(models, "b", times(1))
    (models / "b" / "1" / "model.onnx").write_bytes(b"garbage")
    flags = ("--no-auth", "--no-charge", "--watch-s", "0", "--version-policy", "all")
    with Server(models, tmp_path / "data", *flags) as server:
        told = {each["name"]: each for each in server.client.get("/admin/v1/models").json()["models"]}
        assert (told["m"]["policy"], [each["state"] for each in told["m"]["versions"]]) == ("all", ["AVAILABLE"] * 2)
        assert told["m"]["versions"][0]["size_bytes"] > 0
        (bad,) = told["b"]["versions"]
        assert bad["state"] == "FAILED"
        assert bad["reason"].startswith("b/1/model.onnx is not an ONNX model")

        put = server.client.put("/admin/v1/models/m/labels/stable", json={"version": 1})
        assert (put.status_code, put.json()) == (200, {"name": "m", "label": "stable", "version": 1})
        assert version_of(server, path="/versions/1") == (1, 1.0)
        assert server.client.post("/v1/models/m/labels/stable:predict", json={"instances": [[1.0]]}).json() == {
            "predictions": [[1.0]]
        }
        for body, code in (({"version": 7}, "setting.invalid"), ({"version": "x"}, "request.malformed")):
            refused = server.client.put("/admin/v1/models/m/labels/stable", json=body)
            assert (refused.status_code, refused.json()["code"]) == (400, code)

        listed = tidemill("ls", "--url", server.url)
        assert listed.returncode == 0
        assert "stable" in listed.stdout
        assert "not an ONNX model" in listed.stdout
        unloaded = tidemill("unload", "m", "--url", server.url)
        assert (unloaded.returncode, unloaded.stdout) == (0, "m is unloaded\n")
        assert server.client.get("/v2/models/m").status_code == 404
        assert "unloaded" in tidemill("ls", "--url", server.url).stdout
        loaded = tidemill("load", "m", "--url", server.url)
        assert (loaded.returncode, loaded.stdout) == (0, "m serves version 1, 2\n")
        assert version_of(server) == (2, 2.0)
        for name, why in (("b", "not an ONNX model"), ("gone", "there is no model 'gone'")):
            failed = tidemill("load", name, "--url", server.url)
            assert failed.returncode == 1
            assert why in failed.stderr


def test_models_are_the_operator_s_alone(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save(models, "m", times(1))
    with Server(models, tmp_path / "data", "--no-charge") as server:
        made = json.loads(tidemill("keys", "create", "--tenant", "t", "--data-dir", tmp_path / "data", "--json").stdout)
        headers = {"authorization": f"Bearer {made['key']}"}
        asked = [("GET", ""), ("POST", "/m/load"), ("POST", "/m/unload"), ("PUT", "/m/labels/x")]
        for method, path in asked:
            address = f"/admin/v1/models{path}"
            assert server.client.request(method, address).status_code == 401
            assert server.client.request(method, address, headers=headers).status_code == 403
        assert server.client.get("/v2/models/m", headers=headers).status_code == 200
