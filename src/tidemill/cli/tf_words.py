"""TensorFlow Serving's start line in our words; pure, used by `serve` and by `tensorflow_model_server`.

Its flags are `--name=value` or `--name value`, with one dash or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from tidemill.core.errors import InvalidSetting

GRPC_PORT = 8500
"""TensorFlow Serving's own default for `--port`."""
TAKEN = {
    "port": "port",
    "rest_api_port": "rest_api_port",
    "rest_api_timeout_in_ms": "request_timeout_ms",
    "tensorflow_intra_op_parallelism": "threads",
    "tensorflow_session_parallelism": "threads",
    "num_load_threads": "loads_max",
    "file_system_poll_wait_seconds": "watch_s",
    "model_config_file_poll_wait_seconds": "model_config_poll_s",
    "num_request_iterations_for_warmup": "warm_up_times",
}
"""A number of theirs -> the setting of ours."""
FILES = ("batching_parameters_file", "monitoring_config_file")
"""Files that say settings; whoever starts the service reads them."""
WITHOUT_EFFECT = {
    "enable_batching": "requests are batched anyway, without delay; see `max_batch`",
    "rest_api_num_threads": "one loop reads every request",
    "grpc_max_threads": "one loop reads every request",
    "tensorflow_inter_op_parallelism": "the engines here run one operator after the other",
    "tensorflow_session_config_file": "there is no TensorFlow session",
    "xla_cpu_compilation_enabled": "there is no XLA",
    "grpc_channel_arguments": "the bounds of gRPC are settings",
    "num_unload_threads": "models are unloaded one after the other",
    "max_num_load_retries": "a model that was refused is tried again when its files change, or when it is asked for",
    "load_retry_interval_micros": "a model that was refused is tried again when its files change",
    "flush_filesystem_caches": "the system's cache of files is left to the system",
    "rest_api_enable_cors_support": "no page of another origin may ask; put a proxy before it that says which may",
    "saved_model_tags": "of a SavedModel the graph with the tag `serve` is read",
    "per_process_gpu_memory_fraction": "memory of a GPU is taken as it is needed",
    "enable_signature_method_name_check": "every door asks for the tensors that it needs",
    "remove_unused_fields_from_bundle_metagraph": "what is not needed is not kept",
    "prefer_tflite_model": "TensorFlow Lite's models are not read",
    "use_tflite_model": "TensorFlow Lite's models are not read",
    "num_tflite_interpreters_per_pool": "TensorFlow Lite's models are not read",
    "num_tflite_pools": "TensorFlow Lite's models are not read",
    "enable_grpc_healthcheck_service": "grpc.health.v1.Health always answers",
    "thread_pool_factory_config_file": "each engine has its own threads; see `threads`",
    "enable_profiler": "there is no TensorFlow profiler; traces go to `otlp_endpoint`",
}
"""Flags that ask for nothing we would do otherwise, with the reason, which is told once."""
REFUSED = {
    "platform_config_file": "it sets up TensorFlow's sessions; `engine`, `threads` and each model's tidemill.toml do"
    " that here",
}
"""Flags that ask for what is not done, with what does it instead."""
OWN = (
    "auth_key_file", "grpc_socket_path", "host", "insecure", "max_batch", "data_dir", "log_format", "log_level",
    "engine", "instances", "threads", "ssl_config_file", "model_config_file",
    "allow_version_labels_for_unavailable_models",
)  # fmt: skip
"""Settings of ours that may stand beside them."""
BOOLS = frozenset(
    {
        "allow_version_labels_for_unavailable_models",
        "enable_batching",
        "enable_grpc_healthcheck_service",
        "enable_model_warmup",
        "enable_profiler",
        "enable_signature_method_name_check",
        "flush_filesystem_caches",
        "insecure",
        "prefer_tflite_model",
        "remove_unused_fields_from_bundle_metagraph",
        "rest_api_enable_cors_support",
        "use_tflite_model",
        "xla_cpu_compilation_enabled",
    }
)
KNOWN = frozenset(
    {"model_name", "model_base_path", "enable_model_warmup", *TAKEN, *WITHOUT_EFFECT, *REFUSED, *OWN, *FILES}
)
MARKS = ("model_name", "model_base_path")
OWN_MARKS = ("model_config_file", "rest_api_port")
"""By these a start line is recognised; by the last as they spell it, since they are words of ours too."""
INSIDE = "127.0.0.1"
"""Where gRPC's own port is, which nobody asked for: the ports that were asked for pass gRPC on there."""


class StartLine(NamedTuple):
    """`flags` for the settings, `models` for `serve`, what is to be told, and the files that say more (`FILES`)."""

    flags: dict[str, Any]
    models: list[str]
    notes: list[str]
    files: dict[str, str]


def is_start_line(arguments: Sequence[str]) -> bool:
    """Whether `arguments` of `serve` are TensorFlow Serving's."""
    words = [each for each in arguments if each.startswith("-")]
    return any(_split(word)[0] in MARKS or word.lstrip("-").partition("=")[0] in OWN_MARKS for word in words)


def read(arguments: Sequence[str]) -> StartLine:
    """Raises `InvalidSetting` for a flag that is unknown or has no sensible value, and for no model."""
    given = _given(arguments)
    flags: dict[str, Any] = {"grpc_host": INSIDE, "grpc_port": 0, "no_console": True, "port": GRPC_PORT}
    notes = []
    for name, value in given.items():
        if name in TAKEN:
            flags[TAKEN[name]] = _number(name, value)
        elif name in WITHOUT_EFFECT:
            notes.append(f"--{name} has no effect: {WITHOUT_EFFECT[name]}")
        elif name in REFUSED:
            raise InvalidSetting(f"--{name} is not followed: {REFUSED[name]}; leave it out")
        elif name in OWN:
            flags[name] = _yes(value) if name in BOOLS else value
    flags["http_port"] = flags.get("rest_api_port") or flags["port"]  # one of those asked for, and no third
    flags["no_auth"] = not given.get("auth_key_file")
    if given.get("ssl_config_file"):
        notes.append("--ssl_config_file secures REST too; TensorFlow Serving leaves it in the clear: ask with https://")
    if "enable_model_warmup" in given:
        flags["no_warm_up"] = not _yes(given["enable_model_warmup"])
    if "loads_max" in flags:
        flags["loads_max"] = max(flags["loads_max"], 1)  # theirs says 0 for one after the other
    files = {name: given[name] for name in FILES if given.get(name)}
    path = given.get("model_base_path")
    if given.get("model_config_file"):
        if path:
            notes.append("--model_base_path has no effect: --model_config_file lists the models")
        return StartLine(flags, [], notes, files)
    if not path:
        raise InvalidSetting(
            "--model_base_path is missing: the folder of the model's versions, or the one above it;"
            " or give --model_config_file"
        )
    return StartLine(flags, [f"{given.get('model_name', 'default')}={path}"], notes, files)


def _yes(value: str) -> bool:
    return value.lower() not in {"false", "0"}


def _given(arguments: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name, value = _split(word)
        if not word.startswith("-") or name not in KNOWN:
            near = get_close_matches(name, KNOWN, n=1)
            hint = f"; did you mean --{near[0]}?" if near else ""
            raise InvalidSetting(f"{word!r} is no flag of TensorFlow Serving's that is known here{hint}")
        if value is None:
            follows = bool(waiting) and not waiting[0].startswith("-")
            if name in BOOLS:
                value = waiting.pop(0) if follows and waiting[0].lower() in {"true", "false", "0", "1"} else "true"
            elif not follows:
                raise InvalidSetting(f"--{name} wants a value: --{name}=...")
            else:
                value = waiting.pop(0)
        found[name] = value
    return found


def _split(word: str) -> tuple[str, str | None]:
    name, equals, value = word.lstrip("-").partition("=")
    return name.replace("-", "_"), value if equals else None


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InvalidSetting(f"--{name}={value}: expected a whole number") from error
