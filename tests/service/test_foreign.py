"""Start lines and folders of other servers, unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

import crafted
from serving import Server, eventually, tidemill
from small_models import save, times
from tidemill.core import schemas
from tidemill.repository.tf_record import framed

INPUT = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


def listing(models: Path, *names: str, labels: str = "") -> str:
    told = [f'config {{ name: "{name}" base_path: "{models / name}" {labels} }}' for name in names]
    return f"model_config_list {{ {' '.join(told)} }}"


def answer(server: Server, model: str) -> float | str:
    told = server.client.post(f"/v2/models/{model}/infer", json=INPUT).json()
    return float(told["outputs"][0]["data"][0]) if "outputs" in told else str(told["code"])


def test_list_of_models_is_served_and_followed(tmp_path: Path) -> None:
    models, file, monitoring = tmp_path / "models", tmp_path / "models.config", tmp_path / "monitoring.config"
    for number, name in enumerate(("a", "b", "c"), 1):
        save(models, name, times(number))
        save(models, name, times(10 * number), 10)
    versions = 'model_version_policy { specific { versions: 1 versions: 10 } } version_labels { key: "old" value: 1 }'
    file.write_text(listing(models, "a", "b", labels=versions))
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    with Server(
        models, tmp_path / "data", "--no-auth", "--no-charge", "--model-config-file", file, "--model-config-poll-s",
        "0.05", "--metrics-path", "/monitoring/prometheus/metrics",
    ) as running:  # fmt: skip
        assert [answer(running, name) for name in ("a", "b", "c")] == [10.0, 20.0, "model.unknown"]
        told = running.client.post("/v1/models/a/labels/old:predict", json={"instances": [[1.0]]}).json()
        assert told == {"predictions": [[1.0]]}
        assert "tidemill_requests_total" in running.client.get("/monitoring/prometheus/metrics").text
        file.write_text(listing(models, "b", "c"))
        eventually(lambda: answer(running, "c") == 30.0, "c is served")
        eventually(lambda: answer(running, "a") == "model.unknown", "a is not")
        assert answer(running, "b") == 20.0
        file.write_text("model_config_list {")
        eventually(lambda: "not followed" in running.stderr(), "a bad list is told")
        assert answer(running, "c") == 30.0


def test_every_signature_of_a_saved_model_is_served_and_its_own_is_the_one_its_config_names(tmp_path: Path) -> None:
    """The kit's model, whose three outputs are signatures of their own; one names an output that is no dense tensor."""
    models = tmp_path / "models"
    for name, wish in (("first", ""), ("second", 'signature = "low"\nsignatures = ["high", "gone"]')):
        (models / name).mkdir(parents=True)
        crafted.kit_saved_model(tmp_path / f"kit-{name}").rename(models / name / "1")
        with crafted.changed_saved_model(models / name / "1") as saved:
            signatures = saved.meta_graphs[0].signature_def
            whole = signatures["serving_default"]
            for number, output in enumerate(sorted(whole.outputs)):
                signatures[("high", "low", "odd")[number]].CopyFrom(whole)
                for other in set(whole.outputs) - {output}:
                    del signatures[("high", "low", "odd")[number]].outputs[other]
            for info in signatures["odd"].outputs.values():
                info.coo_sparse.values_tensor_name = "values:0"
        (models / name / "tidemill.toml").write_text(wish)
    sounds = [[[0.25]] * 43844]
    with Server(models, tmp_path / "data", "--no-auth", "--no-charge") as running:

        def told(model: str, **asked: object) -> Any:
            return running.client.post(f"/v1/models/{model}:predict", json={"inputs": sounds} | asked).json()

        whole_answer = told("first")["outputs"]
        high, low, _ = sorted(whole_answer)
        assert told("first", signature_name="high") == {"outputs": whole_answer[high]}
        assert told("first", signature_name="low") == told("second") == {"outputs": whole_answer[low]}
        assert told("second", signature_name="serving_default") == told("second")
        assert "'odd' of this model is not served" in told("first", signature_name="odd")["error"]
        assert "no dense tensor" in told("first", signature_name="odd")["error"]
        assert str(tmp_path) not in told("first", signature_name="odd")["error"]
        assert "this model has 'serving_default', 'high', 'low'" in told("first", signature_name="gone")["error"]
        assert "its file has none" in told("second", signature_name="gone")["error"]
        for model, names in (("first", ["serving_default", "high", "low"]), ("second", ["low", "high"])):
            found = running.client.get(f"/v1/models/{model}/metadata").json()["metadata"]["signature_def"]
            assert list(found["signature_def"]) == names
        assert "signature 'odd' is not served" in running.stderr()
    shown = tidemill("show", "first", "--models", models)
    assert shown.returncode == 0
    assert "signature 'serving_default' for those who name none" in shown.stdout
    assert "signature 'high' too" in shown.stdout
    assert "leaves   signature 'odd': " in shown.stdout
    alone = tidemill("show", "first", "--models", models, "--signatures-max", "2", "--json")
    assert [each["name"] for each in json.loads(alone.stdout)[0]["further_signatures"]] == ["high"]
    assert "(--signatures-max)" in json.loads(alone.stdout)[0]["left_out_signatures"]["low"]


def test_warm_up_file_of_a_saved_model_is_answered_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "pitch").mkdir(parents=True)
    version = crafted.kit_saved_model(tmp_path / "kit").rename(models / "pitch" / "1")
    request = {"model_spec": {"name": "whatever"}, "inputs": {"input_2": {"dtype": 1, "float_val": [0.0]}}}
    log = schemas.message("tensorflow.serving.PredictionLog")(predict_log={"request": request})
    for side in (1, 43844, 1):
        log.predict_log.request.inputs["input_2"].tensor_shape.dim.add(size=side)
    place = version / "assets.extra" / "tf_serving_warmup_requests"
    place.parent.mkdir()
    place.write_bytes(framed(log.SerializeToString()) * 2)
    shown = tidemill("show", "pitch", "--models", models)
    assert shown.returncode == 0
    assert "warm-up  2 requests that it brings, answered" in shown.stdout
    place.write_bytes(place.read_bytes()[:-1])
    shown = tidemill("show", "pitch", "--models", models)
    assert shown.returncode == 3
    assert "record 2 is cut short" in shown.stdout
    with Server(models, tmp_path / "data", "--no-auth", "--no-charge") as running:
        told = running.client.get("/v1/models/pitch").json()["model_version_status"][0]
        assert told["state"] == "END"
        assert "record 2 is cut short" in told["status"]["error_message"]


CHAIN = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "last" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling {
  step [
    { model_name: "m" model_version: 2 input_map { key: "x" value: "half" } output_map { key: "y" value: "last" } },
    { model_name: "m" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "half" } }
  ]
}
"""


def test_repository_of_triton_s_layout_starts_as_it_is(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version in (1, 2, 3):
        save(models, "m", times(version), version)
    (models / "m" / "config.pbtxt").write_text(
        'name: "m"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'
        'input [{ name: "x" data_type: TYPE_FP32 dims: [1] }]\noutput [{ name: "y" data_type: TYPE_FP32 dims: [1] }]\n'
        "version_policy { specific { versions: [1, 2] } }\ndynamic_batching { }\noptimization { graph { level: 1 } }\n"
    )
    save(models, "odd", times(1))
    (models / "odd" / "config.pbtxt").write_text("sequence_batching { }")
    (models / "chain" / "1").mkdir(parents=True)
    (models / "chain" / "config.pbtxt").write_text(CHAIN)
    (models / "parts" / "1" / "model.onnx").mkdir(parents=True)
    weighty = crafted.with_weights(crafted.pointing("weights.bin"))
    onnx.save(weighty, models / "parts" / "1" / "model.onnx" / "model.onnx")
    (models / "parts" / "1" / "model.onnx" / "weights.bin").write_bytes(bytes(16))
    crafted.kit_saved_model(tmp_path / "kit").rename(tmp_path / "saved")
    (models / "saved" / "1").mkdir(parents=True)
    (tmp_path / "saved").rename(models / "saved" / "1" / "model.savedmodel")
    (models / "saved" / "config.pbtxt").write_text('platform: "tensorflow_savedmodel"')
    server = Server(tmp_path / "none", tmp_path / "data", "--no-auth", "--no-charge")
    place = server.command.index("--models")
    server.command[place : place + 2] = ["--model-repository", str(models)]
    with server as running:
        assert answer(running, "m") == 2.0
        assert running.client.get("/v2/models/m/versions/3").status_code == 404
        assert "optimization: the engines here optimise every graph" in running.stderr()
        assert "sequence_batching cannot be done here" in running.stderr()
        assert answer(running, "odd") == "model.not_ready"
        assert answer(running, "chain") == 2.0 * 2.0
        assert running.client.get("/v2/models/chain").json()["platform"] == "ensemble"
        for name in ("parts", "saved"):
            assert running.client.get(f"/v2/models/{name}/ready").status_code == 200
        assert running.client.get("/v2/models/saved").json()["platform"] == "openvino_savedmodel"
