from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.json_format import MessageToJson
from hypothesis import given
from hypothesis import strategies as st

from small_models import save, times
from tidemill.core import schemas
from tidemill.core.errors import InvalidSetting, RefusedModel
from tidemill.core.package import Batching, ModelConfig, Versions, WarmUp, WarmUpInput
from tidemill.repository import layout, look, triton_config

PUBLISHED = """
name: "m"
platform: "onnxruntime_onnx"
max_batch_size : 8
input [
  { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] reshape { shape: [ 3, 224, 224 ] } }
]
output [ { name: "y", data_type: TYPE_FP32, dims: [ 1000 ], label_filename: "classes.txt" } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy { max_queue_size: 32 }
}
version_policy: { specific { versions: [ 1, 3 ] } }
default_model_filename: "net.onnx"
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
parameters { key: "enable_mem_arena" value { string_value: "0" } }
optimization { graph { level : -1 } execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }
model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 3 zero_data: true } } } ]
"""


def read(tmp_path: Path, text: str) -> triton_config.Said:
    place = tmp_path / "config.pbtxt"
    place.write_text(text)
    return triton_config.read(place, "m")


def test_configuration_is_read_as_it_is_published(tmp_path: Path) -> None:
    said = read(tmp_path, PUBLISHED)
    assert said.config == ModelConfig(
        engine="onnx",
        file="net.onnx",
        threads=2,
        instances=2,
        batching=Batching(batched=True, max_batch=8, queue_max=32, max_delay_ms=0.1, preferred=(4, 8)),
        versions=Versions(policy="specific:1,3"),
        warm_up=(WarmUp({"x": WarmUpInput("FP32", (3,))}, "w"),),
    )
    assert said.labels_file == "classes.txt"
    told = "\n".join(said.notes)
    assert all(word in told for word in ("optimization", "enable_mem_arena"))


def warm_up(inner: str, before: str = "batch_size: 2") -> str:
    return f'model_warmup {{ name: "w" {before} inputs {{ key: "x" value {{ {inner} }} }} }}'


def test_warm_up_requests_are_read_with_each_kind_of_data(tmp_path: Path) -> None:
    text = warm_up("data_type: TYPE_STRING dims: [ 2, 3 ] random_data: false", "batch_size: 2 count: 4")
    text += warm_up('data_type: TYPE_BF16 input_data_file: "raw"') + warm_up("data_type: TYPE_INT8 zero_data: true")
    assert read(tmp_path, text).config.warm_up == (
        WarmUp({"x": WarmUpInput("BYTES", (2, 3), "random")}, "w", 2, 4),
        WarmUp({"x": WarmUpInput("BF16", (), "zeros", "raw")}, "w", 2),
        WarmUp({"x": WarmUpInput("INT8")}, "w", 2),
    )


def test_what_is_not_said_is_left_to_the_model(tmp_path: Path) -> None:
    assert read(tmp_path, "").config == ModelConfig()
    assert read(tmp_path, "max_batch_size: 0").config.batching == Batching(batched=False)
    assert read(tmp_path, "max_batch_size: 4").config.batching == Batching(max_batch=4)
    assert read(tmp_path, "dynamic_batching {}").config.batching == Batching()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('name: "other"', "the folder is 'm'"),
        ('backend: "python"', "'python' is not served"),
        ('platform: "tensorrt_plan"', "'tensorrt_plan' is not served"),
        (warm_up("data_type: TYPE_FP32 zero_data: true", ""), "model_warmup 'w': batch_size is 0"),
        (warm_up("zero_data: true"), "model_warmup 'w': input 'x' has no data_type"),
        (warm_up("data_type: TYPE_FP32"), "input 'x' names no zero_data, random_data or input_data_file"),
        (warm_up('data_type: TYPE_FP32 input_data_file: ""'), "names no zero_data"),
        (warm_up("data_type: TYPE_FP32 dims: -1 zero_data: true"), r"dims \[-1\], expected sizes"),
        (warm_up("data_type: TYPE_FP32 zero_data: true", "batch_size: 1 count: 5000"), "warm_up"),
        ("model_warmup { batch_size: 1 }", "model_warmup 1 has no inputs"),
        ("model_warmup { foo: 1 }", 'in model_warmup: .*ModelWarmup" has no field named "foo"'),
        ("sequence_batching {}", "sequence_batching cannot be done here"),
        ("ensemble_scheduling { step [] }", "ensemble_scheduling: an ensemble has a step"),
        ("dynamic_batching { priority_levels: 2 }", "dynamic_batching: priority_levels, .* cannot be had"),
        ("dynamic_batching { priority_queue_policy { key: 1 value {} } }", "dynamic_batching: priority_levels"),
        ("dynamic_batching { foo: 1 }", 'in dynamic_batching: .*ModelDynamicBatching" has no field named "foo"'),
        ("dynamic_batching { default_queue_policy { bar: 1 } }", 'in dynamic_batching: .* has no field named "bar"'),
        ('input { name: "x" optional: true }', "input 'x' is optional"),
        ('input { name: "x" sise: 3 }', 'in input: .* has no field named "sise"'),
        ('output { name: "y" is_non_linear_format_io: true }', "tensor 'y': is_non_linear_format_io"),
        ("instance_group { count: 1 priority: 2 }", 'in instance_group: .* has no field named "priority"'),
        ("version_policy { newest {} }", 'in version_policy: .* has no field named "newest"'),
        ("model_transaction_policy { decoupled: true }", "decoupled"),
        ('input { name: "x" dims: [ 1 ] reshape { shape: [ ] } }', "to be reshaped"),
        ('input { name: "x" allow_ragged_batch: true }', "ragged"),
        ("max_batch_size: -1", "max_batch_size is -1"),
        ("max_batch_size: 100000", "65536"),
        ("max_batch_size: 0 dynamic_batching {}", "above 0"),
        ("max_batch_sise: 3", "max_batch_sise is no field"),
        ("max_batch_size: many", "in max_batch_size: "),
        ("input {", "config.pbtxt"),
        ('model_repository_agents { agents [ { name: "checksum" } ] }', "model_repository_agents"),
    ],
    ids=str,
)
def test_what_would_change_an_answer_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(RefusedModel, match=match) as caught:
        read(tmp_path, text)
    assert "config.pbtxt" in caught.value.message


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("dynamic_batching { preserve_ordering: true }", "dynamic_batching preserve_ordering: "),
        (
            "dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
            "default_queue_policy timeout_action: ",
        ),
        (
            "dynamic_batching { default_queue_policy { allow_timeout_override: true } }",
            "default_queue_policy allow_timeout_override: ",
        ),
        ('input { name: "x" format: FORMAT_NHWC }', "input format: "),
        ("instance_group { rate_limiter { priority: 2 } }", "instance_group rate_limiter: "),
        ("instance_group { passive: true }", "instance_group passive: "),
        ('instance_group { host_policy: "a" }', "instance_group host_policy: "),
        ('instance_group { profile: "a" }', "instance_group profile: "),
        ("instance_group { secondary_devices { device_id: 1 } }", "instance_group secondary_devices: "),
    ],
    ids=str,
)
def test_what_changes_no_answer_is_noted_wherever_it_stands(tmp_path: Path, text: str, note: str) -> None:
    said = read(tmp_path, text)
    assert [each[: len(note)] for each in said.notes] == [note]
    message = text_format.Parse(text, schemas.message("inference.ModelConfig")())
    assert of_json(MessageToJson(message, preserving_proto_field_name=True)).notes == said.notes


def test_instances_that_are_passive_are_not_made(tmp_path: Path) -> None:
    assert read(tmp_path, "instance_group [ { count: 2 }, { count: 3 passive: true } ]").config.instances == 2


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.getbasetemp() / "any.pbtxt"
    place.write_text(text, "utf-8", newline="")
    with contextlib.suppress(RefusedModel):
        assert isinstance(triton_config.read(place, "m").config, ModelConfig)


def test_version_takes_the_configuration_beside_it_and_tidemill_toml_has_the_last_word(tmp_path: Path) -> None:
    version = save(tmp_path, "m", times(1))
    (version / "model.onnx").rename(version / "net.onnx")
    (version / "other.onnx").write_bytes(b"not this one")
    (tmp_path / "m" / "config.pbtxt").write_text(PUBLISHED)
    (tmp_path / "m" / "classes.txt").write_text("cat\ndog\n")
    package = layout.package("m", 1, version)
    assert (package.path.name, package.config.batching.max_batch) == ("net.onnx", 8)
    assert package.config.labels == ("cat", "dog")
    (tmp_path / "m" / "tidemill.toml").write_text("[batching]\nmax_batch = 5\n")
    package = layout.package("m", 1, version)
    assert (package.config.batching.max_batch, package.config.batching.queue_max) == (5, 32)
    found = look.look(layout.entry(tmp_path, "m"))
    assert found.policy is not None
    assert found.policy.specific == (1, 3)


@pytest.mark.parametrize("name", ["../m/1/model.onnx", "/etc/passwd", "..", ".", "a\\\\b", "gone.onnx"])
def test_file_that_is_named_lies_in_the_version_s_folder_or_is_refused(tmp_path: Path, name: str) -> None:
    version = save(tmp_path, "m", times(1))
    (tmp_path / "m" / "config.pbtxt").write_text(f'default_model_filename: "{name}"')
    with pytest.raises(RefusedModel, match=r"no name of a file|holds no"):
        layout.package("m", 1, version)


PLAIN = PUBLISHED.partition("optimization")[0]


def of_json(text: str) -> triton_config.Said:
    return triton_config.of_json(text, "m")[0]


def test_json_says_what_the_text_form_says(tmp_path: Path) -> None:
    message = text_format.Parse(PLAIN, schemas.message("inference.ModelConfig")())
    text = MessageToJson(message, preserving_proto_field_name=True)
    assert of_json(text).config == read(tmp_path, PLAIN).config


def test_empty_fields_of_json_ask_for_nothing_whatever_they_are() -> None:
    given = {"sequence_batching": {}, "ensemble_scheduling": None, "parameters": {}, "default_model_filename": ""}
    assert of_json(json.dumps(given)).config == ModelConfig()
    assert of_json('{"max_batch_size": 0}').config == ModelConfig(batching=Batching(batched=False))


def test_what_we_tell_of_our_own_engines_is_understood() -> None:
    assert of_json('{"backend": "openvino", "platform": "openvino_savedmodel"}').config.engine == "openvino"
    assert of_json('{"backend": "echo"}').config.engine == "echo"
    assert of_json('{"platform": "echo_echo"}').config.engine == "echo"


def test_ensemble_has_no_warm_up_of_its_own(tmp_path: Path) -> None:
    text = """
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ] output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
    ensemble_scheduling {
      step [ { model_name: "a" input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } ]
    }
    """
    assert read(tmp_path, text).config.engine == "ensemble"
    with pytest.raises(RefusedModel, match="give it to the models of its steps"):
        read(tmp_path, text + warm_up("data_type: TYPE_FP32 zero_data: true"))


def test_what_has_no_effect_is_noted() -> None:
    given = '{"optimization": {"graph": {"level": 1}}, "instance_group": [{"kind": "KIND_GPU", "gpus": [0]}]}'
    assert [note.partition(":")[0] for note in of_json(given).notes] == ["optimization", "instance_group"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "expected an object"),
        ('"x"', "expected an object"),
        ("[" * 100_000, "no JSON"),
        ('{"name": "other"}', "name is 'other'"),
        ('{"max_batch_size": -1}', "max_batch_size is -1"),
        ('{"max_batch_size": 65537}', "65536"),
        ('{"max_batch_size": 1.5}', "max_batch_size"),
        ('{"max_batch_size": []}', "max_batch_size"),
        ('{"instance_group": [{"count": 1000}, {"count": 25}]}', "1024"),
        ('{"instance_group": 3}', "instance_group"),
        ('{"sequence_batching": {"max_sequence_idle_microseconds": 5}}', "sequence_batching"),
        ('{"ensemble_scheduling": {"step": [{}]}}', "ensemble_scheduling: step 1 has no model_name"),
        ('{"dynamic_batching": {"foo": 1}}', "foo"),
        ('{"dynamic_batching": {"priority_levels": 2}}', "priority_levels"),
        ('{"input": [{"name": "x", "optional": true}]}', "optional"),
        ('{"model_transaction_policy": {"decoupled": true}}', "decoupled"),
        ('{"max_batch_size": 0, "dynamic_batching": {"preferred_batch_size": [4]}}', "above 0"),
        ('{"maxBatchSize": 8}', "maxBatchSize"),
        ('{"version_policy": {"newest": {}}, "odd": 1}', "odd"),
        ('{"backend": "tensorrt"}', "tensorrt"),
        ('{"platform": "tensorrt_plan"}', "tensorrt_plan"),
    ],
)
def test_json_that_cannot_be_honoured_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        of_json(text)
    assert words in caught.value.message
    assert len(caught.value.message) < 700
