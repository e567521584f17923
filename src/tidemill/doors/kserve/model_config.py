"""V2's model configuration in Triton's words: what is in force of a served version; pure.

Both wires share one form, plain JSON values: REST renders them, gRPC reads them into its message.
`repository/triton_config.py` reads the configuration that a load brings.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tidemill.core.contracts import Served
from tidemill.core.errors import InvalidSetting
from tidemill.core.package import ModelConfig, VersionPolicy
from tidemill.core.running import Running
from tidemill.core.tensor import TensorSpec
from tidemill.core.text import short

Message: TypeAlias = Any
"""An `inference.ModelConfig`."""

TYPES = {"BYTES": "TYPE_STRING"}
"""Datatype -> Triton's word for it, where that is not `TYPE_` and the datatype."""


def told(served: Served, policy: VersionPolicy | None, timeout_s: float) -> dict[str, Any]:
    """The configuration of `served`. `policy` is that of its versions, None where nobody knows it; `timeout_s` the
    deadline of a request that names none.

    Batches wait for nobody, so there is no delay; `dims` leaves the batch dimension out where there is one.
    """
    running = served.running()
    config: dict[str, Any] = {
        "name": served.name,
        "platform": served.platform,
        "backend": running.backend,
        "max_batch_size": running.rows_max,
        "input": [_tensor(spec, running.rows_max > 0) for spec in served.signature.inputs],
        "output": [_tensor(spec, running.rows_max > 0) for spec in served.signature.outputs],
        "instance_group": [{"name": f"{served.name}_0", "kind": "KIND_CPU", "count": running.instances}],
        "model_transaction_policy": {"decoupled": False},
    }
    if policy is not None:
        config["version_policy"] = _policy(policy)
    if running.rows_max:
        config["dynamic_batching"] = {
            "preferred_batch_size": list(running.preferred),
            "max_queue_delay_microseconds": round(running.delay_ms_max * 1000),
            "preserve_ordering": False,
            "default_queue_policy": _queue_policy(running, timeout_s),
        }
    return config


def _policy(policy: VersionPolicy) -> dict[str, Any]:
    if policy.specific:
        return {"specific": {"versions": list(policy.specific)}}
    return {"all": {}} if policy.all_versions else {"latest": {"num_versions": policy.latest}}


def _queue_policy(running: Running, timeout_s: float) -> dict[str, Any]:
    return {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": int(timeout_s * 1e6),
        "allow_timeout_override": True,
        "max_queue_size": running.waiting_max,
    }


def _tensor(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    shape = (-1,) if spec.shape is None else spec.shape[1:] if batched else spec.shape
    return {"name": spec.name, "data_type": TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"), "dims": list(shape)}


def check(said: Message, config: ModelConfig, served: Served) -> None:
    """Hold what a configuration says of the model against what it is. `config` is how `said` was understood. Raises
    `InvalidSetting`."""
    size = said.max_batch_size
    for spec in served.signature.inputs + served.signature.outputs:
        if size and spec.shape is not None and spec.shape[:1] != (-1,):
            raise InvalidSetting(
                f"config.max_batch_size is {size}, and dimension 0 of {spec} is no batch; leave max_batch_size at 0"
            )
    batched = size > 0 or (config.batching.batched is not False and served.running().rows_max > 0)
    for kind, tensors, specs in (
        ("input", said.input, served.signature.inputs),
        ("output", said.output, served.signature.outputs),
    ):
        own = [_tensor(spec, batched) for spec in specs]
        for tensor in tensors:
            word = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
            told = {"name": tensor.name, "data_type": word, "dims": list(tensor.dims)}
            if told not in own:
                raise InvalidSetting(f"config.{kind} says {short(told, 200)}, the model has {short(own, 500)}")
