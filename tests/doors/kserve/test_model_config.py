"""A model's configuration in Triton's words, told and asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from fakes import HALVE, FakeServed, halve
from tidemill.core.errors import InvalidSetting
from tidemill.core.package import Batching, ModelConfig, VersionPolicy
from tidemill.core.tensor import DTYPES, Signature, TensorSpec
from tidemill.doors.kserve import model_config

TIMEOUT_S = 60.0
ALL = VersionPolicy(all_versions=True)


def served(signature: Signature = HALVE, rows_max: int = 8) -> FakeServed:
    made = FakeServed("half", 1, signature, halve)
    made.rows_max = rows_max
    return made


def asked(**config: Any) -> model_config.Override:
    return model_config.override("half", json.dumps(config))


def test_what_is_told_of_a_model_that_joins_requests() -> None:
    told = model_config.told(served(), ALL, TIMEOUT_S)
    assert told["max_batch_size"] == 8
    assert told["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}]
    assert told["version_policy"] == {"all": {}}
    assert told["instance_group"] == [{"name": "half_0", "kind": "KIND_CPU", "count": 2}]
    assert told["dynamic_batching"]["default_queue_policy"] == {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": 60_000_000,
        "allow_timeout_override": True,
        "max_queue_size": 100,
    }


def test_a_model_asked_singly_has_whole_shapes_and_no_batching() -> None:
    told = model_config.told(served(rows_max=0), None, TIMEOUT_S)
    assert told["max_batch_size"] == 0
    assert told["input"][0]["dims"] == [-1, -1]
    assert not told.keys() & {"dynamic_batching", "version_policy"}


SPECS = st.builds(
    TensorSpec,
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from(list(DTYPES)),
    st.none() | st.lists(st.integers(-1, 5), max_size=4).map(tuple),
)


POLICIES = st.sampled_from(
    [None, ALL, VersionPolicy(), VersionPolicy(latest=3), VersionPolicy(specific=(1, 3)), VersionPolicy(specific=(2,))]
)


@given(
    st.lists(SPECS, max_size=3).map(tuple),
    st.lists(SPECS, max_size=3).map(tuple),
    st.sampled_from([0, 1, 64]),
    POLICIES,
)
def test_any_model_is_told_as_triton_reads_it_and_what_is_told_can_be_asked_for(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], rows_max: int, policy: VersionPolicy | None
) -> None:
    if rows_max:  # what is batched has a free dimension 0
        inputs, outputs = (
            tuple(TensorSpec(s.name, s.datatype, s.shape and (-1, *s.shape[1:])) for s in specs if s.shape != ())
            for specs in (inputs, outputs)
        )
    model = served(Signature(inputs, outputs), rows_max)
    told = model_config.told(model, policy, TIMEOUT_S)
    read = ParseDict(told, triton.ModelConfig())
    assert [each.name for each in read.input] == [spec.name for spec in inputs]
    wish = model_config.override("half", json.dumps(told))
    model_config.check(wish, model, TIMEOUT_S)
    config = model_config.model_config(wish)
    assert config.batching == Batching(batched=rows_max > 0, max_batch=rows_max or None)
    assert config.instances == 2
    assert config.engine == "fake"
    word = config.versions.policy
    assert (None if word is None else VersionPolicy.parse(word)) == policy


def test_what_is_not_said_is_left_as_it_was() -> None:
    assert model_config.model_config(asked()) == ModelConfig()
    assert model_config.model_config(asked(name="half", instance_group=[{}, {"count": 3}])) == ModelConfig(instances=4)


def test_tritons_name_of_a_backend_is_understood() -> None:
    assert model_config.model_config(asked(backend="onnxruntime")).engine == "onnx"
    assert model_config.model_config(asked(backend="openvino")).engine == "openvino"


def test_empty_fields_ask_for_nothing_whatever_they_are() -> None:
    """A client that read a configuration from Triton sends all of it back."""
    config = asked(optimization={}, model_warmup=[], parameters={}, default_model_filename="", sequence_batching=None)
    assert model_config.model_config(config) == ModelConfig()


def test_hints_that_batches_without_delay_keep_are_taken() -> None:
    asked(max_batch_size="8", dynamic_batching={"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": "100"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "expected an object"),
        ('"x"', "expected an object"),
        ("[" * 100_000, "no JSON"),
        ('{"name": "other"}', "for 'other', the model to load is 'half'"),
        ('{"max_batch_size": -1}', "max_batch_size is -1"),
        ('{"max_batch_size": 65537}', "expected 0 to 65536"),
        ('{"max_batch_size": 1.5}', "max_batch_size"),
        ('{"instance_group": [{"kind": "KIND_GPU"}]}', "KIND_GPU"),
        ('{"instance_group": [{"gpus": [0]}]}', "gpus"),
        ('{"instance_group": [{"count": 0}]}', "counts [0]"),
        ('{"instance_group": [{"count": 1000}, {"count": 25}]}', "1 to 1024 in all"),
        ('{"sequence_batching": {"max_sequence_idle_microseconds": 5}}', "sequence_batching"),
        ('{"ensemble_scheduling": {"step": [{}]}}', "ensemble_scheduling"),
        ('{"model_transaction_policy": {"decoupled": true}}', "decoupled"),
        ('{"dynamic_batching": {"priority_levels": 2}}', "priority_levels"),
        ('{"dynamic_batching": {"preserve_ordering": true}}', "preserve_ordering"),
        ('{"max_batch_size": 0, "dynamic_batching": {"preferred_batch_size": [4]}}', "above 0"),
        ('{"maxBatchSize": 8}', "maxBatchSize"),
        ('{"version_policy": {"latest": {"num_versions": 0}}}', "latest:0"),
        ('{"version_policy": {"specific": {"versions": []}}}', "specific:"),
        ('{"version_policy": {"newest": {}}}', "newest"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        model_config.override("half", text)
    assert words in caught.value.message


FIXED = Signature((TensorSpec("x", "FP32", (2, 3)),), (TensorSpec("y", "FP32", (2, 3)),))


@pytest.mark.parametrize(
    ("config", "signature", "words"),
    [
        ({"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [-1]}]}, HALVE, "'z'"),
        ({"input": [{"name": "x", "data_type": "TYPE_FP64", "dims": [-1]}]}, HALVE, "TYPE_FP64"),
        ({"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [7]}]}, HALVE, "[7]"),
        ({"max_batch_size": 4}, FIXED, "dimension 0 of x FP32 [2, 3] is no batch"),
        ({"platform": "tensorrt_plan"}, HALVE, "the model runs on fake"),
        (
            {"max_batch_size": 4, "dynamic_batching": {"default_queue_policy": {"max_queue_size": 1}}},
            HALVE,
            "--queue-max",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(config: dict[str, Any], signature: Signature, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        model_config.check(asked(**config), served(signature), TIMEOUT_S)
    assert words in caught.value.message
