"""The files that TensorFlow Serving's start line names, as models to serve and settings; pure but for reading them.

Used by the owner and the command line, and for `HandleReloadConfigRequest`, which sends the same message.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tidemill.core.errors import InvalidSetting, MalformedRequest
from tidemill.core.package import ModelEntry, VersionPolicy
from tidemill.core.text import short
from tidemill.repository import layout, text_proto

log = logging.getLogger(__name__)

VERSIONS_MAX = 1000
NUMBER_MAX = 10**18
QUEUE_MAX = 1_000_000


def models_of(text: str, path: Path) -> list[ModelEntry]:
    """The models that `text`, from the `--model_config_file` at `path`, names. Raises `InvalidSetting`."""
    config = text_proto.parse(text, "tensorflow.serving.ModelServerConfig", path)
    try:
        return entries(config)
    except (MalformedRequest, InvalidSetting) as error:
        raise InvalidSetting(f"{path}: {error.message}") from error


def entries(config: Any) -> list[ModelEntry]:
    """The models of a `ModelServerConfig`. `model_platform` is not asked: what a file is, is read from its content.

    Raises `MalformedRequest` for a config of another kind, `InvalidSetting` for a model that is told badly, or twice.
    """
    kind = config.WhichOneof("config")
    if kind != "model_config_list":
        raise MalformedRequest(f"the config is {kind or 'empty'}; expected a model_config_list")
    found = [_entry(each) for each in config.model_config_list.config]
    names = [entry.name for entry in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidSetting(f"model {twice[0]!r} is named twice; each model has one entry")
    return found


def _entry(config: Any) -> ModelEntry:
    name, base = config.name, config.base_path
    if not name:
        raise InvalidSetting("a model in the list has no name")
    if not layout.NAME.fullmatch(name):
        raise InvalidSetting(f"{short(name)} is no name for a model; letters, digits, '_', '-' and '.' are")
    if elsewhere := layout.elsewhere(base):
        raise InvalidSetting(f"model {name!r} has the base_path {short(base)}: {elsewhere}")
    if not base.startswith("/") or "\0" in base:
        raise InvalidSetting(f"model {name!r} has the base_path {short(base)}; expected an absolute path")
    for field, why in MODEL_NOTES.items():
        if _is_said(config, field):
            log.info("%s has no effect: %s", field, why, extra={"model": name})
    labels = dict(config.version_labels)
    for label, version in labels.items():
        if not label or not 0 <= version < NUMBER_MAX:
            raise InvalidSetting(f"model {name!r} has the label {short(label)} for version {version}")
    return ModelEntry(name, Path(base), _policy(name, config.model_version_policy), labels)


def _policy(name: str, policy: Any) -> VersionPolicy | None:
    """None where nothing is said: the model's own policy, else the service's."""
    choice = policy.WhichOneof("policy_choice")
    if choice is None:
        return None
    if choice == "all":
        return VersionPolicy(all_versions=True)
    if choice == "specific":
        versions = tuple(sorted(set(policy.specific.versions)))
        if not versions or versions[0] < 0 or versions[-1] >= NUMBER_MAX or len(versions) > VERSIONS_MAX:
            raise InvalidSetting(
                f"model {name!r} asks for the specific versions {short(list(versions))}; name 1 to {VERSIONS_MAX}"
            )
        return VersionPolicy(specific=versions)
    latest = policy.latest.num_versions or 1
    if latest > VERSIONS_MAX:
        raise InvalidSetting(f"model {name!r} asks for the latest {latest} versions, at most {VERSIONS_MAX} are served")
    return VersionPolicy(latest=latest)


def read_batching(path: Path) -> tuple[dict[str, float], list[str]]:
    """The settings that `--batching_parameters_file` asks for, and what of it has no effect. Raises
    `InvalidSetting`."""
    fields = text_proto.split(text_proto.text_of(path), path)
    heard = [field for field in fields if field[0] not in BATCHING_NOTES]
    said = text_proto.parse_fields(heard, "tensorflow.serving.BatchingParameters", path)
    settings: dict[str, float] = {}
    for field, setting in (("max_batch_size", "max_batch"), ("num_batch_threads", "instances")):
        if said.HasField(field):
            settings[setting] = _positive(path, field, getattr(said, field).value)
    if said.HasField("batch_timeout_micros"):
        if not 0 <= said.batch_timeout_micros.value <= DELAY_US_MAX:
            raise InvalidSetting(
                f"{path}: batch_timeout_micros is {said.batch_timeout_micros.value}, expected 0 to {DELAY_US_MAX}"
            )
        settings["batch_delay_ms"] = said.batch_timeout_micros.value / 1000
    if said.HasField("max_enqueued_batches"):
        batches = _positive(path, "max_enqueued_batches", said.max_enqueued_batches.value)
        # They count batches, `queue_max` counts requests, of which a batch may hold that many.
        settings["queue_max"] = min(batches * settings.get("max_batch", 1), QUEUE_MAX)
    untold = [name for name in dict.fromkeys(name for name, _ in fields) if name in BATCHING_NOTES]
    notes = [f"{path}: {field} has no effect: {BATCHING_NOTES[field]}" for field in untold]
    return settings, notes


DELAY_US_MAX = 60_000_000
"""As `batch_delay_ms` has it."""
MODEL_NOTES = {
    "model_type": "what a file is, is read from its content",
    "logging_config": "requests are not written to files; --access-log and --otlp-endpoint tell of them",
}
"""Fields of a model in the list that change no answer here, with the reason."""
ONE_LINE = "requests wait in one line, whoever sends them"
BATCHING_NOTES = {
    "allowed_batch_sizes": "batches of any size run as they are",
    "pad_variable_length_inputs": "lengths are joined where the model's tidemill.toml has [batching.padding]",
    "enable_large_batch_splitting": "a request larger than a batch is asked in parts anyway",
    "max_execution_batch_size": "a batch is never larger than max_batch_size",
    "thread_pool_name": "every model has threads of its own",
    "batch_padding_policy": "a batch runs as large as it is",
    "low_priority_max_batch_size": ONE_LINE,
    "low_priority_batch_timeout_micros": ONE_LINE,
    "low_priority_max_enqueued_batches": ONE_LINE,
    "low_priority_allowed_batch_sizes": ONE_LINE,
    "low_priority_max_execution_batch_size": ONE_LINE,
    "mixed_priority_batching_policy": ONE_LINE,
    "enable_priority_queue": ONE_LINE,
}
"""Fields that change no answer here, with the reason."""


def read_metrics_path(path: Path) -> str:
    """Where `--monitoring_config_file` wants the metrics, "" where it wants none. Raises `InvalidSetting`."""
    said = text_proto.parse(text_proto.text_of(path), "tensorflow.serving.MonitoringConfig", path).prometheus_config
    return (said.path or METRICS_PATH) if said.enable else ""


METRICS_PATH = "/monitoring/prometheus/metrics"
"""TensorFlow Serving's own default."""


def _is_said(message: Any, field: str) -> bool:
    return any(each.name == field for each, _ in message.ListFields())


def _positive(path: Path, field: str, value: int) -> int:
    if value < 1:
        raise InvalidSetting(f"{path}: {field} is {value}, expected 1 at least")
    return value
