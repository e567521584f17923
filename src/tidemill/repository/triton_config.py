"""Triton's configuration of a model, from `config.pbtxt` beside it or as JSON, as our `ModelConfig`; read by the owner
and the command line.

What changes no answer is told once in the log; what would change one and cannot be done here is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict, ParseError

from tidemill.core import registry, schemas
from tidemill.core.errors import InvalidSetting, RefusedModel
from tidemill.core.package import Batching, ModelConfig, Versions
from tidemill.core.text import short
from tidemill.repository import text_proto, triton_ensemble

NAME = "config.pbtxt"
SHOWN = 500
ENGINES = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "openvino": "openvino",
    "tensorflow": None,
    "tensorflow_savedmodel": None,
    triton_ensemble.ENGINE: triton_ensemble.ENGINE,
    "": None,
}
"""Triton's backend or platform -> our engine; None: the one for the format of the file."""
UNDERSTOOD = frozenset(
    (
        *("name", "platform", "backend", "max_batch_size", "input", "output", "instance_group", "dynamic_batching"),
        *("version_policy", "default_model_filename", "parameters", "model_transaction_policy", "ensemble_scheduling"),
        "model_warmup",
    )
)
WITHOUT_EFFECT = {
    "optimization": "the engines here optimise every graph",
    "response_cache": "there is no cache of answers yet",
    "metric_tags": "metrics bear the model and its version",
    "model_metrics": "metrics are the same for every model",
    "cc_model_filenames": "there is no GPU",
    "runtime": "the engine brings its own",
}
IMPOSSIBLE = {
    "sequence_batching": "requests are answered each for itself, in no order",
    "batch_input": "no input is made by the server",
    "batch_output": "outputs are parted by rows alone",
    "model_operations": "an engine loads no operators of a file",
    "model_repository_agents": "nothing here decrypts or checks a model before it is loaded",
}
INSTANCE_NOTES = {
    "rate_limiter": "models share the cores, and no resources are counted",
    "passive": "such instances are not made",
    "profile": "it is TensorRT's",
    "secondary_devices": "models run on the CPU here",
    "host_policy": "where threads run is the system's to choose",
}
PARAMETERS = {"intra_op_thread_count": "threads"}


class Said(msgspec.Struct, frozen=True):
    """`notes` tell what has no effect. `labels_file` is the file of the classes' names, beside `config.pbtxt`."""

    config: ModelConfig
    notes: tuple[str, ...] = ()
    labels_file: str = ""


def read(path: Path, model: str) -> Said:
    """Raises `RefusedModel`."""
    try:
        fields = text_proto.split(text_proto.text_of(path), path)
    except InvalidSetting as error:
        raise RefusedModel(error.message) from error
    names = [name for name, _ in fields]
    try:
        notes = _noted(names)
    except RefusedModel as error:
        raise RefusedModel(f"{path}: {error.message}") from error
    try:
        understood = [field for field in fields if field[0] in UNDERSTOOD]
        said = text_proto.parse_fields(understood, "inference.ModelConfig", path)
    except InvalidSetting as error:
        raise RefusedModel(error.message) from error
    try:
        return _understood(said, model, "max_batch_size" in names, notes)
    except (RefusedModel, msgspec.ValidationError) as error:
        raise RefusedModel(f"{path}: {error}") from error


def of_json(text: str, model: str) -> tuple[Said, Any]:
    """What the JSON of a ModelConfig says, and the message itself. Raises `InvalidSetting`.

    A field that is empty asks for nothing: who read a configuration and changed a word of it sends all of it back.
    """
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSetting(f"config is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidSetting(f"config is {short(given)}, expected an object, the JSON of a ModelConfig")
    names = [name for name, value in given.items() if value or name == "max_batch_size"]
    try:
        notes = _noted(names)
        understood = {name: given[name] for name in names if name in UNDERSTOOD}
        message = ParseDict(understood, schemas.message("inference.ModelConfig")())
        return _understood(message, model, "max_batch_size" in names, notes), message
    except (RefusedModel, msgspec.ValidationError, ParseError, RecursionError) as error:
        raise InvalidSetting(f"config: {str(error)[:SHOWN]}") from error


def _noted(names: list[str]) -> list[str]:
    """Notes on the fields without effect. Raises `RefusedModel` for those that cannot be had."""
    for name in names:
        if name in IMPOSSIBLE:
            raise RefusedModel(f"{name} cannot be done here: {IMPOSSIBLE[name]}")
        if name not in UNDERSTOOD and name not in WITHOUT_EFFECT:
            raise RefusedModel(f"{name[:80]} is no field of a model's configuration that is known here")
    return [f"{name}: {WITHOUT_EFFECT[name]}" for name in dict.fromkeys(names) if name in WITHOUT_EFFECT]


def _understood(said: Any, model: str, sized: bool, notes: list[str]) -> Said:
    if said.name not in ("", model):
        raise RefusedModel(f"name is {short(said.name)}, and the folder is {model!r}; they are one")
    if said.model_transaction_policy.decoupled:
        raise RefusedModel("decoupled: a request has one answer here")
    _check_tensors(said, notes)
    threads = None
    for name, parameter in sorted(said.parameters.items()):
        if name in PARAMETERS and parameter.string_value.isdecimal():
            threads = int(parameter.string_value)
        else:
            notes.append(f"parameters {short(name)}: not known here")
    filename = said.default_model_filename
    given = {
        "engine": _engine(said),
        "threads": threads,
        "instances": _instances(said, notes),
        "file": filename or None,
        "batching": msgspec.to_builtins(_batching(said, sized, notes)),
        "versions": msgspec.to_builtins(Versions(policy=_policy(said.version_policy))),
        **triton_ensemble.translated(said, notes),
        "warm_up": [_warm_up(number, sample) for number, sample in enumerate(said.model_warmup, 1)] or None,
    }
    if said.model_warmup and given["engine"] == triton_ensemble.ENGINE:
        raise RefusedModel("model_warmup is for a model, and this is an ensemble; give it to the models of its steps")
    labels = [output.label_filename for output in said.output if output.label_filename]
    if len(labels) > 1:
        notes.append("label_filename: of several, none; classes are those of one output")
    config = msgspec.convert({name: value for name, value in given.items() if value is not None}, ModelConfig)
    return Said(config, tuple(notes), labels[0] if len(labels) == 1 else "")


def _engine(said: Any) -> str | None:
    return _engine_of(said.backend) or _engine_of(said.platform)


def _engine_of(word: str) -> str | None:
    """`word` is Triton's, or what we tell ourselves: an engine, or an engine and a format."""
    if word in ENGINES:
        return ENGINES[word]
    engine = word.partition("_")[0]
    engine = ENGINES.get(engine) or engine
    if engine not in registry.names("engine"):
        raise RefusedModel(f"backend {short(word)} is not served; onnxruntime, openvino and tensorflow are")
    return engine


def _check_tensors(said: Any, notes: list[str]) -> None:
    for tensor in (*said.input, *said.output):
        if tensor.is_non_linear_format_io:
            raise RefusedModel(f"tensor {short(tensor.name)}: is_non_linear_format_io is TensorRT's alone")
        if tensor.HasField("reshape") and list(tensor.reshape.shape) != list(tensor.dims):
            raise RefusedModel(
                f"tensor {short(tensor.name)} is to be reshaped from {list(tensor.dims)} to"
                f" {list(tensor.reshape.shape)}; shapes are the model's own here: leave reshape out, and ask with them"
            )
        if tensor.is_shape_tensor:
            raise RefusedModel(f"tensor {short(tensor.name)} is a shape tensor, which TensorRT alone has")
    for tensor in said.input:
        if tensor.allow_ragged_batch:
            raise RefusedModel(f"input {short(tensor.name)} allows ragged batches, which no engine here takes")
        if tensor.optional:
            raise RefusedModel(f"input {short(tensor.name)} is optional, and a request brings every input here")
    if any(tensor.format for tensor in said.input):
        notes.append("input format: the model itself has it so")


def _warm_up(number: int, sample: Any) -> dict[str, Any]:
    """A `[[warm_up]]`. A count of 0 is once, a file is data of its own."""
    where = f"model_warmup {short(sample.name) if sample.name else number}"
    if not sample.batch_size:
        raise RefusedModel(f"{where}: batch_size is 0, expected 1 or more")
    if not sample.inputs:
        raise RefusedModel(f"{where} has no inputs")
    inputs = {}
    for name, told in sorted(sample.inputs.items()):
        datatype = triton_ensemble.datatype_of(told)
        if not datatype:
            raise RefusedModel(f"{where}: input {short(name)} has no data_type that is known here")
        if any(side < 0 for side in told.dims):
            raise RefusedModel(f"{where}: input {short(name)} has dims {list(told.dims)}, expected sizes")
        kind = told.WhichOneof("input_data_type")
        if kind is None or (kind == "input_data_file" and not told.input_data_file):
            raise RefusedModel(f"{where}: input {short(name)} names no zero_data, random_data or input_data_file")
        inputs[name] = {
            "datatype": datatype,
            "shape": list(told.dims),
            "data": "random" if kind == "random_data" else "zeros",
            "file": told.input_data_file,
        }
    return {"name": sample.name, "rows": sample.batch_size, "count": sample.count or 1, "inputs": inputs}


def _instances(said: Any, notes: list[str]) -> int | None:
    groups = list(said.instance_group)
    if any(group.kind == group.KIND_GPU or group.gpus for group in groups):
        notes.append("instance_group: models run on the CPU here")
    for field, why in INSTANCE_NOTES.items():
        if any(each.name == field for group in groups for each, _ in group.ListFields()):
            notes.append(f"instance_group {field}: {why}")
    return sum(max(group.count, 1) for group in groups if not group.passive) or None


def _batching(said: Any, sized: bool, notes: list[str]) -> Batching:
    """Where nothing is said of `max_batch_size`, Triton asks the model, and so do we; 0 says that dimension 0 is no
    batch."""
    size = said.max_batch_size
    if size < 0:
        raise RefusedModel(f"max_batch_size is {size}, expected 0 or more")
    joined = said.HasField("dynamic_batching")
    if joined and sized and size == 0:
        raise RefusedModel("dynamic_batching wants a max_batch_size above 0")
    dynamic = said.dynamic_batching
    if dynamic.priority_levels or dynamic.default_priority_level or dynamic.priority_queue_policy:
        raise RefusedModel(
            "dynamic_batching: priority_levels, default_priority_level and priority_queue_policy cannot be had:"
            " requests wait in one line here, whoever sends them; leave them out"
        )
    if dynamic.preserve_ordering:
        notes.append("dynamic_batching preserve_ordering: each request is answered by itself")
    queue = dynamic.default_queue_policy
    if queue.timeout_action == queue.DELAY:
        notes.append("default_queue_policy timeout_action: what is late is refused at its deadline, never put off")
    if queue.allow_timeout_override:
        notes.append("default_queue_policy allow_timeout_override: a request may always ask for an earlier deadline")
    if queue.default_timeout_microseconds:
        notes.append("default_queue_policy: a request's deadline is its own, or --request-timeout-ms")
    return Batching(
        batched=(False if size == 0 else True if joined else None) if sized else None,
        max_batch=size or None,
        queue_max=queue.max_queue_size or None,
        max_delay_ms=dynamic.max_queue_delay_microseconds / 1000 if dynamic.max_queue_delay_microseconds else None,
        preferred=tuple(dynamic.preferred_batch_size),
    )


def _policy(said: Any) -> str | None:
    choice = said.WhichOneof("policy_choice")
    if choice == "latest":
        return f"latest:{said.latest.num_versions or 1}"
    if choice == "specific":
        return "specific:" + ",".join(map(str, said.specific.versions))
    return choice and "all"
