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
from tidemill.core import running
from tidemill.core.errors import InvalidSetting
from tidemill.core.package import Batching, ModelConfig, VersionPolicy
from tidemill.core.tensor import DTYPES, Signature, TensorSpec
from tidemill.doors.kserve import model_config
from tidemill.repository import triton_config

TIMEOUT_S = 60.0
ALL = VersionPolicy(all_versions=True)


class Running(FakeServed):
    """On an engine that Triton knows."""

    platform = "onnxruntime_onnx"

    def running(self) -> running.Running:
        return running.Running("onnxruntime", self.rows_max, 2, 100)


def served(signature: Signature = HALVE, rows_max: int = 8) -> FakeServed:
    made = Running("half", 1, signature, halve)
    made.rows_max = rows_max
    return made


def asked(**config: Any) -> tuple[Any, ModelConfig]:
    """The message and how it is understood."""
    said, message = triton_config.of_json(json.dumps(config), "half")
    return message, said.config


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
    message, config = asked(**told)
    model_config.check(message, config, model)
    size = rows_max or None
    queue_max = 100 if size else None
    assert config.batching == Batching(batched=rows_max > 0, max_batch=size, queue_max=queue_max)
    assert config.instances == 2
    assert config.engine == "onnx"
    word = config.versions.policy
    assert (None if word is None else VersionPolicy.parse(word)) == policy


FIXED = Signature((TensorSpec("x", "FP32", (2, 3)),), (TensorSpec("y", "FP32", (2, 3)),))


@pytest.mark.parametrize(
    ("config", "signature", "words"),
    [
        ({"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [-1]}]}, HALVE, "'z'"),
        ({"input": [{"name": "x", "data_type": "TYPE_FP64", "dims": [-1]}]}, HALVE, "TYPE_FP64"),
        ({"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [7]}]}, HALVE, "[7]"),
        ({"max_batch_size": 0, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}]}, HALVE, "[-1, -1]"),
        ({"max_batch_size": 4}, FIXED, "dimension 0 of x FP32 [2, 3] is no batch"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(config: dict[str, Any], signature: Signature, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        model_config.check(*asked(**config), served(signature))
    assert words in caught.value.message
