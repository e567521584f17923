"""TensorFlow's own generated client, with its own `tf.train.Example`s, against a real server of real models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import small_models
from serving import Server

Ask = Callable[..., Any]
ROWS = [{"a": [1.0, 2.0], "b": [0.5]}, {"a": [3.0, 4.0], "b": [1.0]}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small models, `sum` in two versions."""
    folder = small_models.lay_out(tmp_path_factory.mktemp("models"))
    shutil.copytree(folder / "sum" / "1", folder / "sum" / "2")
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(models, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as running:
        yield running


@pytest.fixture
def ask(tensorflow_side: Ask, server: Server) -> Ask:
    def asked(verb: str, **arguments: Any) -> Any:
        return tensorflow_side(verb, address=server.told["grpc_address"], **arguments)

    return asked


@pytest.mark.slow
def test_classify_and_regress_and_both_at_once(ask: Ask) -> None:
    classes = [[["low", 1.5], ["high", 2.5]], [["low", 4.0], ["high", 5.0]]]
    assert ask("classify", model="named", examples=ROWS) == {"classes": classes, "version": 1}
    assert ask("regress", model="named", examples=ROWS) == {"values": [0.5, 1.0], "version": 1}
    both = ask("multi_inference", model="named", examples=ROWS, verbs=["regress", "classify"])
    assert both == {"results": [[0.5, 1.0], classes], "versions": [1, 1]}


@pytest.mark.slow
def test_context_and_labels(ask: Ask) -> None:
    examples = [{"a": row["a"]} for row in ROWS]
    assert ask("regress", model="named", examples=examples, context={"b": [7]})["values"] == [7, 7]
    (row,) = ask("classify", model="kinds", examples=[{"x": [0, 0, 0]}])["classes"]
    assert [label for label, _ in row] == ["cat", "dog", "Mühle"]


@pytest.mark.slow
def test_refusals_carry_status_code_and_words(ask: Ask) -> None:
    found = ask("classify", model="named", examples=[{"a": [1.0, 2.0]}])
    assert (found["status"], found["code"]) == ("INVALID_ARGUMENT", "input.missing")
    assert "'b'" in found["details"]
    found = ask("regress", model="named", label="stable", examples=ROWS)
    assert (found["status"], found["code"]) == ("NOT_FOUND", "model.label_unknown")
    found = ask("classify", model="text", examples=[{"x": ["a"]}])
    assert (found["status"], found["code"]) == ("INVALID_ARGUMENT", "model.signature_unknown")


@pytest.mark.slow
def test_reload_changes_what_is_served_and_status_tells_it(ask: Ask, server: Server, models: Path) -> None:
    available = ["AVAILABLE", 0, ""]
    assert ask("status", model="sum") == {"versions": [[2, *available]]}
    told = {"name": "sum", "base_path": str(models / "sum"), "versions": [1, 2], "labels": {"stable": 1, "canary": 2}}
    named = {"name": "named", "base_path": str(models / "named")}
    assert ask("reload", models=[told, named]) == {"error_code": 0}
    assert ask("status", model="sum") == {"versions": [[2, *available], [1, *available]]}
    assert ask("status", model="sum", label="stable") == {"versions": [[1, *available]]}
    assert ask("regress", model="sum", label="stable", examples=[{"x": [1, 2]}]) == {"values": [3.0], "version": 1}
    assert ask("regress", model="sum", examples=[{"x": [1, 2]}])["version"] == 2
    answer = server.client.post("/v1/models/sum/labels/canary:regress", json={"examples": [{"x": [1, 2]}]})
    assert answer.json()["results"] == [3.0]
    over_rest = server.client.get("/v1/models/sum/labels/stable").json()["model_version_status"]
    assert [each["version"] for each in over_rest] == ["1"]
    assert server.client.get("/v1/models/sum/labels/stable/metadata").json()["model_spec"]["version"] == "1"
    assert ask("regress", model="half", examples=[{"input": [1.0]}])["status"] in ("NOT_FOUND", "UNAVAILABLE")
    served = [each["id"] for each in server.client.get("/v1/models").json()["data"]]
    assert served == ["named", "sum"]
    refusal = ask("reload", models=[named, {"name": "gone", "base_path": str(models / "gone")}])
    assert refusal["status"] in ("NOT_FOUND", "FAILED_PRECONDITION"), refusal
    assert ask("classify", model="named", examples=ROWS)["version"] == 1
