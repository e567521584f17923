"""A SavedModel that TensorFlow wrote, with a signature each for predict, classify and regress, served by OpenVINO."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

import needs
from serving import Server, tidemill
from tidemill.core.schemas import message

TESTS = Path(__file__).parents[1]
ROWS = [[1.0, 2.0], [3.0, 4.0]]
EXAMPLES = {"examples": [{"x": row} for row in ROWS]}
KINDS = [[["0", 0.5], ["1", 1.0]], [["0", 1.5], ["1", 2.0]]]
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
SERVED = {"serving_default": "tensorflow/serving/predict", "kinds": CLASSIFY, "sum": REGRESS}
WRITE_S_MAX = 120

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`three` of `saved_models`, and the same with `sum` as its own and no other."""
    python = needs.tensorflow_python()
    folder = tmp_path_factory.mktemp("models")
    write = (
        "import pathlib, sys, saved_models\nfor name in sys.argv[1:]: saved_models.three(pathlib.Path(name) / '1')\n"
    )
    subprocess.run(
        [python, "-c", write, folder / "three", folder / "one"],
        check=True,
        capture_output=True,
        timeout=WRITE_S_MAX,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(TESTS), "CUDA_VISIBLE_DEVICES": "-1"},
    )
    (folder / "one" / "tidemill.toml").write_text('signature = "sum"\nsignatures = []\n')
    return folder


@pytest.fixture(scope="module", params=["0", "2"], ids=["alone", "two-fronts"])
def server(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    with Server(models, data, "--no-auth", "--call-nanos", "250", "--fronts", request.param) as running:
        yield running


def ask(server: Server, method: str, takes: str, gives: str, metadata: Any = (), **fields: Any) -> Any:
    with grpc.insecure_channel(server.told["grpc_address"]) as channel:
        asked = channel.unary_unary(
            f"/tensorflow.serving.PredictionService/{method}",
            request_serializer=lambda made: made.SerializeToString(),
            response_deserializer=message(f"tensorflow.serving.{gives}").FromString,
        )
        return asked(message(f"tensorflow.serving.{takes}")(**fields), timeout=20, metadata=metadata)


def example_list() -> Any:
    made = message("tensorflow.serving.Input")()
    for row in ROWS:
        each = made.example_list.examples.add()
        each.features.feature["x"].float_list.value.extend(row)
    return made


def spec(name: str) -> dict[str, str]:
    return {"name": "three", "signature_name": name}


def both(server: Server, *metadata: tuple[str, str]) -> Any:
    tasks = [
        {"model_spec": spec("sum"), "method_name": REGRESS},
        {"model_spec": spec("kinds"), "method_name": CLASSIFY},
    ]
    return ask(
        server, "MultiInference", "MultiInferenceRequest", "MultiInferenceResponse", metadata,
        tasks=tasks, input=example_list(),
    )  # fmt: skip


def test_signature_name_chooses_over_rest(server: Server) -> None:
    def told(verb: str, **body: Any) -> Any:
        return server.client.post(f"/v1/models/three:{verb}", json=body).json()

    for named in ({}, {"signature_name": "serving_default"}, {"signature_name": ""}):
        assert told("predict", instances=ROWS, **named) == {"predictions": [[2.0, 4.0], [6.0, 8.0]]}
    assert told("predict", inputs=ROWS, signature_name="sum") == {"outputs": [3.0, 7.0]}
    assert told("classify", signature_name="kinds", **EXAMPLES)["results"] == KINDS
    assert told("regress", signature_name="sum", **EXAMPLES)["results"] == [3.0, 7.0]
    assert "not for" in told("classify", signature_name="sum", **EXAMPLES)["error"]
    assert server.predict("one", {"instances": ROWS}).json() == {"predictions": [3.0, 7.0]}


def test_signature_name_chooses_over_grpc(server: Server) -> None:
    tensor = {"dtype": 1, "tensor_shape": {"dim": [{"size": 2}, {"size": 2}]}, "float_val": [1, 2, 3, 4]}
    for name, output, values in (
        ("", "y", [2, 4, 6, 8]),
        ("sum", "outputs", [3, 7]),
        ("kinds", "scores", [0.5, 1, 1.5, 2]),
    ):
        told = ask(server, "Predict", "PredictRequest", "PredictResponse", model_spec=spec(name), inputs={"x": tensor})
        assert list(told.outputs[output].float_val) == values
        assert told.model_spec.signature_name == (name or "serving_default")
    asked = {"model_spec": spec("kinds"), "input": example_list()}
    told = ask(server, "Classify", "ClassificationRequest", "ClassificationResponse", **asked)
    assert [[[each.label, each.score] for each in row.classes] for row in told.result.classifications] == KINDS
    asked["model_spec"] = spec("sum")
    told = ask(server, "Regress", "RegressionRequest", "RegressionResponse", **asked)
    assert [each.value for each in told.result.regressions] == [3, 7]


def test_two_signatures_are_asked_in_one_call_that_is_charged_once(server: Server) -> None:
    told = both(server, ("idempotency-key", "once"))
    first, second = told.results
    assert [each.value for each in first.regression_result.regressions] == [3, 7]
    classes = second.classification_result.classifications
    assert [[[each.label, each.score] for each in row.classes] for row in classes] == KINDS
    assert [each.model_spec.signature_name for each in told.results] == ["sum", "kinds"]
    before = charges(server)
    both(server)
    assert charges(server) == (before[0] + 1, before[1] + 250)
    both(server, ("idempotency-key", "once"))
    assert charges(server) == (before[0] + 1, before[1] + 250)


def charges(server: Server) -> Any:
    with closing(sqlite3.connect(server.data_dir / "tidemill.db")) as connection:
        return connection.execute("SELECT COUNT(*), SUM(nanos) FROM charges").fetchone()


def test_counts_are_the_model_s_together(server: Server) -> None:
    def answered() -> float:
        told = server.client.get("/v2/models/three/stats").json()["model_stats"][0]
        return float(told["inference_stats"]["success"]["count"])

    before = answered()
    both(server)
    server.predict("three", {"instances": ROWS, "signature_name": "sum"})
    server.predict("three", {"instances": ROWS})
    assert answered() == before + 4


def test_metadata_tell_all_that_are_served(server: Server) -> None:
    told = server.client.get("/v1/models/three/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert {name: each["method_name"] for name, each in told.items()} == SERVED
    assert list(told["sum"]["outputs"]) == ["outputs"]
    asked = {"model_spec": {"name": "three"}, "metadata_field": ["signature_def"]}
    answer = ask(server, "GetModelMetadata", "GetModelMetadataRequest", "GetModelMetadataResponse", **asked)
    found = message("tensorflow.serving.SignatureDefMap")()
    assert answer.metadata["signature_def"].Unpack(found)
    assert {name: each.method_name for name, each in found.signature_def.items()} == SERVED
    assert [each["name"] for each in server.client.get("/v2/models/three").json()["outputs"]] == ["y"]


def test_who_asks_for_one_that_is_not_served_hears_why(server: Server) -> None:
    refusals = {}
    for name in ("words", "gone", "__init"):
        answer = server.predict("three", {"instances": ROWS, "signature_name": name})
        assert (answer.status_code, answer.json()["code"]) == (400, "model.signature_unknown")
        refusals[name] = answer.json()["error"]
    assert "'words' of this model is not served: OpenVINO" in refusals["words"]
    assert str(server.command[5]) not in refusals["words"], "no path of this machine"
    for name in ("gone", "__init"):
        assert f"no signature '{name}'; this model has 'serving_default', 'kinds', 'sum'" in refusals[name]
    with pytest.raises(grpc.RpcError) as caught:
        ask(server, "Regress", "RegressionRequest", "RegressionResponse", model_spec=spec("gone"), input=example_list())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no signature 'gone'" in caught.value.details()
    assert "signature 'words' is not served" in server.stderr()
    answer = server.predict("one", {"instances": ROWS, "signature_name": "kinds"})
    assert "its tidemill.toml names other `signatures`" in answer.json()["error"]


def test_reloaded_model_serves_all_again(server: Server) -> None:
    assert server.client.post("/v2/repository/models/three/unload").status_code == 200
    assert server.predict("three", {"instances": ROWS, "signature_name": "sum"}).status_code in (404, 503)
    assert server.client.post("/v2/repository/models/three/load").status_code == 200
    assert server.predict("three", {"instances": ROWS, "signature_name": "sum"}).json() == {"predictions": [3.0, 7.0]}


def test_show_lists_them(models: Path) -> None:
    shown = tidemill("show", "three", "--models", models)
    assert shown.returncode == 0
    assert "serves   signature 'serving_default' for those who name none" in shown.stdout
    assert "serves   signature 'kinds' too (tensorflow/serving/classify)" in shown.stdout
    assert "serves   signature 'sum' too (tensorflow/serving/regress)" in shown.stdout
    assert "leaves   signature 'words': OpenVINO" in shown.stdout
