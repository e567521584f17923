"""V2's model configuration in Triton's words: what is in force of a served version, and what a load may ask for; pure.

Both wires share one form, plain JSON values: REST renders them, gRPC reads them into its message.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidemill.core.contracts import Served
from tidemill.core.errors import InvalidSetting
from tidemill.core.package import Batching, ModelConfig, VersionPolicy, Versions
from tidemill.core.running import Running
from tidemill.core.tensor import TensorSpec
from tidemill.core.text import short

TYPES = {"BYTES": "TYPE_STRING"}
"""Datatype -> Triton's word for it, where that is not `TYPE_` and the datatype."""
ROWS_MAX = 65_536
INSTANCES_MAX = 1024


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
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
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


# -- in ----------------------------------------------------------------------------------------------------------------


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    """`name` means nothing here; a group without a count is one instance, as with Triton."""

    name: str = ""
    kind: Literal["KIND_AUTO", "KIND_CPU"] = "KIND_AUTO"
    count: int = 1


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    data_type: str
    dims: list[int] = []


class _Queue(msgspec.Struct, forbid_unknown_fields=True):
    """The service's own, which no load changes: what is said of it must be so."""

    timeout_action: str | None = None
    default_timeout_microseconds: int | None = None
    allow_timeout_override: bool | None = None
    max_queue_size: int | None = None


class _Joining(msgspec.Struct, forbid_unknown_fields=True):
    """A delay is the most that a batch may wait, a preferred size a hint: batches that wait for nobody keep both."""

    preferred_batch_size: list[int] = []
    max_queue_delay_microseconds: int = 0
    preserve_ordering: Literal[False] = False
    default_queue_policy: _Queue | None = None


class _Latest(msgspec.Struct, forbid_unknown_fields=True):
    num_versions: int = 1


class _Specific(msgspec.Struct, forbid_unknown_fields=True):
    versions: list[int] = []


class _Policy(msgspec.Struct, forbid_unknown_fields=True):
    latest: _Latest | None = None
    all: dict[str, Any] | None = None
    specific: _Specific | None = None

    def word(self) -> str:
        """As `VersionPolicy.parse` reads it."""
        if self.specific is not None:
            return "specific:" + ",".join(map(str, self.specific.versions))
        return "all" if self.all is not None else f"latest:{self.latest.num_versions if self.latest else 1}"


class _Transactions(msgspec.Struct, forbid_unknown_fields=True):
    decoupled: Literal[False] = False


class Override(msgspec.Struct, forbid_unknown_fields=True):
    """A configuration that a load asks for, as far as it can be honoured. None: not said, so as it was."""

    name: str = ""
    platform: str = ""
    backend: str = ""
    max_batch_size: int | None = None
    input: list[_Tensor] = []
    output: list[_Tensor] = []
    instance_group: list[_Group] = []
    dynamic_batching: _Joining | None = None
    version_policy: _Policy | None = None
    model_transaction_policy: _Transactions | None = None


ENGINES = {"onnxruntime": "onnx"}
"""Triton's name of a backend -> the engine, where they differ."""


def override(model: str, text: str) -> Override:
    """The JSON of a `ModelConfig` for `model`. Raises `InvalidSetting`, which names what cannot be honoured."""
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSetting(f"config is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidSetting(f"config is {short(given)}, expected an object, the JSON of a ModelConfig")
    # A client that read a configuration sends all of it back; a field that is empty asks for nothing.
    said = {name: value for name, value in given.items() if value or name == "max_batch_size"}
    try:
        found = msgspec.convert(said, Override, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"config asks for what this server cannot do: {error}") from error
    if found.name not in ("", model):
        raise InvalidSetting(f"config is for {short(found.name)}, the model to load is {model!r}")
    if not 0 <= (found.max_batch_size or 0) <= ROWS_MAX:
        raise InvalidSetting(f"config.max_batch_size is {found.max_batch_size}, expected 0 to {ROWS_MAX}")
    counts = [group.count for group in found.instance_group]
    if counts and (min(counts) < 1 or sum(counts) > INSTANCES_MAX):
        raise InvalidSetting(f"config.instance_group has counts {short(counts)}, expected 1 to {INSTANCES_MAX} in all")
    if found.version_policy is not None:
        try:
            VersionPolicy.parse(found.version_policy.word())
        except ValueError as error:
            raise InvalidSetting(f"config.version_policy is {short(given['version_policy'])}: {error}") from error
    if found.dynamic_batching is not None and found.max_batch_size == 0:
        raise InvalidSetting("config has dynamic_batching and max_batch_size 0; batches want a size above 0")
    return found


def model_config(asked: Override) -> ModelConfig:
    """What `asked` means for loading; what it does not say is left to the model and the service."""
    size = asked.max_batch_size
    return ModelConfig(
        engine=ENGINES.get(asked.backend, asked.backend) or None,
        instances=sum(group.count for group in asked.instance_group) or None,
        versions=Versions() if asked.version_policy is None else Versions(policy=asked.version_policy.word()),
        batching=Batching() if size is None else Batching(batched=size > 0, max_batch=size or None),
    )


def check(asked: Override, served: Served, timeout_s: float) -> None:
    """Hold what `asked` says of the model and of the service against what they are. Raises `InvalidSetting`."""
    running, size = served.running(), asked.max_batch_size
    for spec in served.signature.inputs + served.signature.outputs:
        if size and spec.shape is not None and spec.shape[:1] != (-1,):
            raise InvalidSetting(
                f"config.max_batch_size is {size}, and dimension 0 of {spec} is no batch; leave max_batch_size at 0"
            )
    batched = running.rows_max > 0 if size is None else size > 0
    _check_tensors("input", asked.input, [_tensor(spec, batched) for spec in served.signature.inputs])
    _check_tensors("output", asked.output, [_tensor(spec, batched) for spec in served.signature.outputs])
    if asked.platform and not (asked.platform == served.platform or asked.platform.startswith(f"{asked.backend}_")):
        raise InvalidSetting(f"config.platform is {short(asked.platform)}, the model runs on {served.platform}")
    own = _queue_policy(running, timeout_s)
    queue = asked.dynamic_batching.default_queue_policy if asked.dynamic_batching else None
    said = {name: value for name, value in msgspec.to_builtins(queue or _Queue()).items() if value is not None}
    if any(own[name] != value for name, value in said.items()):
        raise InvalidSetting(
            f"config.default_queue_policy says {short(said, 200)}, the service's is {own}; --queue-max and"
            " --request-timeout-ms set it for all models"
        )


def _check_tensors(kind: str, said: list[_Tensor], own: list[dict[str, Any]]) -> None:
    for tensor in said:
        told = msgspec.to_builtins(tensor)
        if told not in own:
            raise InvalidSetting(f"config.{kind} says {short(told, 200)}, the model has {own}")
