"""Start lines and folders of other servers, unchanged."""

from __future__ import annotations

from pathlib import Path

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


def test_signatures_that_are_not_served_are_named_wherever_one_looks(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name, served in (("first", ""), ("second", 'signature = "again"')):
        (models / name).mkdir(parents=True)
        crafted.kit_saved_model(tmp_path / f"kit-{name}").rename(models / name / "1")
        with crafted.changed_saved_model(models / name / "1") as saved:
            signatures = saved.meta_graphs[0].signature_def
            signatures["again"].CopyFrom(signatures["serving_default"])
        (models / name / "tidemill.toml").write_text(served)
    with Server(models, tmp_path / "data", "--no-auth", "--no-charge") as running:
        told = [
            running.client.post("/v1/models/first:predict", json={"signature_name": name, "inputs": []}).json()["error"]
            for name in ("again", "gone")
        ]
        assert "signature 'again' is in this model's file and is not served" in told[0]
        assert "tidemill.toml says signature = 'again'" in told[0]
        assert "there is no signature 'gone'" in told[1]
        assert "its file holds 'again' besides" in told[1]
        assert "signature 'serving_default' is served; its file holds 'again' besides" in running.stderr()
        found = running.client.get("/v1/models/second/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert list(found) == ["again"]
    shown = tidemill("show", "first", "--models", models)
    assert shown.returncode == 0
    assert "signature 'serving_default'; not served: 'again'" in shown.stdout


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
