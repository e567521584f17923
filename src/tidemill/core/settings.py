"""Every setting of the service in one table, and the pure function that resolves them; used in every process.

One word names a setting everywhere: the flag `--http-port`, the environment's `TIDEMILL_HTTP_PORT`, the key
`http_port` in `tidemill.toml`. A flag beats the environment, the environment beats the file, the file beats the
default. An unknown key is an error.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import platformdirs

from tidemill.core.aliases import aliases_of
from tidemill.core.errors import InvalidSetting
from tidemill.core.price import CALL_NANOS_MAX, TOKEN_NANOS_MAX
from tidemill.core.versions import VersionPolicy

ENVIRONMENT_PREFIX = "TIDEMILL_"


def _setting(
    default: Any,
    about: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
    check: Callable[[str], object] | None = None,
) -> Any:
    """`check` raises `ValueError` for a text that is none."""
    return field(
        default=default,
        metadata={"about": about, "at_least": at_least, "at_most": at_most, "one_of": one_of, "check": check},
    )


def _metrics_path(value: str) -> None:
    if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
        raise ValueError(f"{value!r}: expected a path such as /monitoring/metrics")


def _providers(value: str) -> None:
    if not re.fullmatch(r"(\w+( *, *\w+)*)?", value):
        raise ValueError(f"{value!r}: expected names with commas between them, such as tensorrt,cuda")


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Times end in `_s` or `_ms`, sizes in `_bytes`, money in `_nanos` (1e-9 of a unit)."""

    # where
    host: str = _setting("127.0.0.1", "Address to listen on. A public one wants keys, or --insecure.")
    http_port: int = _setting(8000, "Port for REST; 0 picks a free one.", at_least=0, at_most=65535)
    grpc_port: int = _setting(8001, "Port for gRPC; 0 picks a free one.", at_least=0, at_most=65535)
    grpc_host: str = _setting("", "Address of gRPC's own port, where it is not that of `host`.")
    grpc_socket_path: str = _setting("", "Unix socket at which gRPC answers too, in the clear, to this user alone.")
    rest_api_port: int = _setting(
        0, "TensorFlow Serving's port for REST; answers gRPC too. 0: none.", at_least=0, at_most=65535
    )
    port: int = _setting(0, "TensorFlow Serving's port for gRPC; answers REST too. 0: none.", at_least=0, at_most=65535)
    console_port: int = _setting(8002, "Port for the console; 0 picks a free one.", at_least=0, at_most=65535)
    no_console: bool = _setting(False, "Do not start the console.")
    models: Path = _setting(
        Path(platformdirs.user_data_dir("tidemill")) / "models", "The repository: DIR/NAME/VERSION/..."
    )
    data_dir: Path = _setting(
        Path(platformdirs.user_data_dir("tidemill")), "Folder of keys, charges, files and batches."
    )
    version_policy: str = _setting(
        "latest",
        "Which versions of a model are served: latest, latest:N, all, or specific:1,3.",
        check=VersionPolicy.parse,
    )
    aliases: str = _setting(
        "",
        "Further names by which models are asked, as gpt-4o=llama,gpt-4=llama; charges tell the model's own.",
        check=aliases_of,
    )
    model_config_file: str = _setting(
        "", "TensorFlow Serving's ModelServerConfig (text form): the models to serve, in the place of MODEL."
    )
    model_config_poll_s: float = _setting(
        0.0, "How often that file is read again and followed; 0 never.", at_least=0, at_most=86_400
    )
    watch_s: float = _setting(
        2.0, "How often the models on disk are looked at for changes; 0 never.", at_least=0, at_most=86_400
    )
    load_timeout_s: float = _setting(600.0, "Longest load of one model.", at_least=0.1, at_most=86_400)
    no_warm_up: bool = _setting(
        False, "Do not have a model answer the warm-up requests that it brings before it serves."
    )
    warm_up_times: int = _setting(
        1, "How often each request of TensorFlow Serving's warm-up file is answered.", at_least=1, at_most=1000
    )
    loads_max: int = _setting(1, "Models that are loaded at once.", at_least=1, at_most=64)
    signatures_max: int = _setting(
        16, "Signatures of one SavedModel that are served, its default among them.", at_least=1, at_most=1024
    )
    allow_version_labels_for_unavailable_models: bool = _setting(
        False, "A label may stand for a version that is not served (yet)."
    )
    # who
    no_auth: bool = _setting(False, "Ask for no key; allowed on loopback, or with --insecure.")
    auth_key_file: str = _setting("", "File of further keys, a line for each: TENANT:KEY.")
    insecure: bool = _setting(False, "Allow a public address without keys or TLS.")
    tls_cert: str = _setting("", "Certificate chain (PEM file) of every port; with --tls-key it turns TLS on.")
    tls_key: str = _setting("", "Private key (PEM file) of --tls-cert, without a passphrase.")
    tls_client_ca: str = _setting(
        "", "Take only clients that show a certificate which these (PEM file) signed, and a key besides."
    )
    ssl_config_file: str = _setting("", "TensorFlow Serving's SSLConfig (text form), instead of the three --tls files.")
    # money
    no_charge: bool = _setting(False, "Book no charges.")
    call_nanos: int = _setting(
        1_000_000, "Price of one answered call, where the model names none.", at_least=0, at_most=CALL_NANOS_MAX
    )
    prompt_token_nanos: int = _setting(
        0, "Price of one token of a prompt, where the model names none.", at_least=0, at_most=TOKEN_NANOS_MAX
    )
    completion_token_nanos: int = _setting(
        0, "Price of one token of an answer, where the model names none.", at_least=0, at_most=TOKEN_NANOS_MAX
    )
    cached_token_nanos: int = _setting(
        -1,
        "Price of one token of a prompt that needed no work, where the model names none; -1: as the prompt's others.",
        at_least=-1,
        at_most=TOKEN_NANOS_MAX,
    )
    batch_percent: int = _setting(
        100,
        "What a line of a batch costs of the price of the same request, where the model names nothing.",
        at_least=0,
        at_most=100,
    )
    # engine and lane
    engine: str = _setting("auto", "Engine for every model; auto chooses by format.")
    openvino_precision: str = _setting(
        "f32",
        "What OpenVINO computes floats in, where the model names nothing; auto: what is quickest on this processor.",
        one_of=("f32", "bf16", "auto"),
    )
    providers: str = _setting(
        "",
        "onnxruntime's execution providers where the model names none, as tensorrt,cuda; the CPU is always the last.",
        check=_providers,
    )
    threads: int = _setting(0, "Threads of one engine; 0 takes the number of cores.", at_least=0, at_most=1024)
    instances: int = _setting(
        0,
        "Batches of one model at once, each with its share of the threads; 0 decides by the model's size.",
        at_least=0,
        at_most=1024,
    )
    max_batch: int = _setting(64, "Rows of one batch at most, where the model names none.", at_least=1, at_most=65536)
    batch_delay_ms: float = _setting(
        0.0,
        "How long a batch may wait for more rows while an engine is free, where the model names nothing; 0 never.",
        at_least=0,
        at_most=60_000,
    )
    queue_max: int = _setting(
        256, "Requests that one model holds at most; one more is answered 503.", at_least=1, at_most=1_000_000
    )
    inline_us_max: int = _setting(
        200,
        "A model that answers one row faster than this, on one core, runs on the service's own thread.",
        at_least=0,
        at_most=10_000,
    )
    # language models
    kv_cache_bytes: int = _setting(
        0,
        "Memory of one language model for what it has read and said; 0: a quarter of what is free when it loads.",
        at_least=0,
        at_most=2**50,
    )
    generate_running_max: int = _setting(
        64, "Answers of one language model that are generated at once; the next wait.", at_least=1, at_most=4096
    )
    generate_step_tokens: int = _setting(
        256,
        "Tokens that one step of a language model works on at most; longer prompts are read in parts.",
        at_least=32,
        at_most=65_536,
    )
    generate_nice: int = _setting(
        10, "How far the process that generates stands back behind this service's others.", at_least=0, at_most=19
    )
    generate_restart_ms_max: int = _setting(
        5_000, "Longest pause before a process that generated and ended is started again.", at_least=1, at_most=600_000
    )
    generate_silent_ms_max: int = _setting(
        60_000,
        "A process that generates for somebody and says nothing for so long is killed and started again.",
        at_least=1000,
        at_most=3_600_000,
    )
    constraint_ms_max: int = _setting(
        1000,
        "What compiling a schema, a regular expression or a grammar that an answer must fit may take.",
        at_least=10,
        at_most=60_000,
    )
    constraint_waiting_max: int = _setting(
        16, "So many of them may wait to be compiled, each unlike the others.", at_least=1, at_most=4096
    )
    constraint_running_max: int = _setting(
        1, "So many of a model's are compiled at once, each in a process of its own.", at_least=1, at_most=64
    )
    export_weights: str = _setting(
        "int8",
        "What `tidemill compile` brings a language model's weights to, and what is served of it; `file` serves a GGUF"
        " as it is, though it was compiled.",
        one_of=("int8", "f16", "f32", "file"),
    )
    compiled_bytes_max: int = _setting(
        64 * 10**9,
        "Bytes that `tidemill compile` keeps; beyond them what was used longest ago is removed.",
        at_least=0,
        at_most=2**60,
    )
    template_ms_max: int = _setting(
        500, "What a language model's template for chat may take for one request.", at_least=1, at_most=60_000
    )
    # steps between what people send and tensors
    step_threads: int = _setting(
        2, "Threads on which the steps of all models run, before and after their engines.", at_least=1, at_most=256
    )
    image_pixels_max: int = _setting(
        25_000_000, "Pixels of a picture at most; judged before it is unpacked.", at_least=1, at_most=2**31 - 1
    )
    audio_s_max: int = _setting(600, "Seconds of a sound at most.", at_least=1, at_most=86_400)
    text_bytes_max: int = _setting(2**20, "Bytes of a text or CSV at most.", at_least=1, at_most=2**28)
    elements_max: int = _setting(
        20_000,
        "Calls that one request makes of one model at most, where a stage or `[each]` makes several.",
        at_least=1,
        at_most=1_000_000,
    )
    embed_texts_max: int = _setting(2048, "Texts of one request for embeddings at most.", at_least=1, at_most=65_536)
    # bounds of a request
    request_timeout_ms: int = _setting(60_000, "Deadline of a request that names none.", at_least=1, at_most=86_400_000)
    body_bytes_max: int = _setting(64 * 2**20, "Body of one request at most.", at_least=1024, at_most=2**31 - 1)
    words_timeout_ms: int = _setting(
        600_000, "Deadline of a request for words or embeddings that names none.", at_least=1, at_most=86_400_000
    )
    words_body_bytes_max: int = _setting(
        8 * 2**20,
        "Body of one request for words or embeddings at most, where body_bytes_max allows as much.",
        at_least=1024,
        at_most=2**31 - 1,
    )
    choices_max: int = _setting(16, "Answers that one request may have drawn (n) at most.", at_least=1, at_most=1024)
    sse_keep_alive_ms: int = _setting(
        15_000, "A stream of events says that it lives after such a silence.", at_least=10, at_most=3_600_000
    )
    openai_lax: bool = _setting(
        False, "Leave fields alone that OpenAI's dialect does not know, and take numbers and flags that came as text."
    )
    # files and batches
    file_bytes_max: int = _setting(
        64 * 2**20,
        "A file for a batch at most, where body_bytes_max allows as much.",
        at_least=1024,
        at_most=2**31 - 1,
    )
    files_max: int = _setting(1000, "Files that one tenant may have.", at_least=1, at_most=1_000_000)
    files_bytes_max: int = _setting(
        2**30,
        "Bytes of all files of one tenant from which on no further is taken; what batches write counts.",
        at_least=1024,
        at_most=2**50,
    )
    batch_lines_max: int = _setting(50_000, "Lines of one batch at most.", at_least=1, at_most=1_000_000)
    batches_unfinished_max: int = _setting(
        100, "Batches of one tenant that wait or run at most.", at_least=1, at_most=100_000
    )
    batches_running_max: int = _setting(4, "Batches that run at once; the next wait.", at_least=1, at_most=1024)
    batch_window_s_max: int = _setting(
        604_800, "Longest completion_window that a batch may name.", at_least=1, at_most=31_536_000
    )
    batch_places: int = _setting(
        4,
        "Lines of batches that one model answers at once; each other request under way takes one of these places.",
        at_least=1,
        at_most=4096,
    )
    batch_tries: int = _setting(
        8,
        "How often a line is tried that finds its model overloaded, not loaded or broken, and a batch that fails.",
        at_least=1,
        at_most=100,
    )
    values_max: int = _setting(2**24, "Values in the tensors of one request at most.", at_least=1, at_most=2**31 - 1)
    header_bytes_max: int = _setting(16 * 2**10, "Headers of one request at most.", at_least=1024, at_most=2**20)
    header_timeout_ms: int = _setting(
        10_000, "Time for the headers of a request to arrive.", at_least=10, at_most=600_000
    )
    body_idle_ms: int = _setting(10_000, "Longest silence within the body of a request.", at_least=10, at_most=600_000)
    body_timeout_ms: int = _setting(
        600_000, "Time for the whole body of a request to arrive.", at_least=10, at_most=86_400_000
    )
    keep_alive_ms: int = _setting(75_000, "An idle connection is closed after this.", at_least=10, at_most=3_600_000)
    connections_max: int = _setting(4096, "Connections at once; one more is closed.", at_least=1, at_most=1_000_000)
    stream_requests_max: int = _setting(
        64, "Requests of one gRPC stream under way; the next waits to be read.", at_least=1, at_most=65_536
    )
    health_watch_ms: int = _setting(
        500, "How often a health watch over gRPC looks for a change.", at_least=10, at_most=600_000
    )
    commit_queue_max: int = _setting(
        65_536, "Charges that wait for the disk at most; one more is answered 503.", at_least=1, at_most=10_000_000
    )
    commit_delay_ms: int = _setting(
        5,
        "How long a charge may wait for those of other running requests, to share one write; 0 never.",
        at_least=0,
        at_most=1000,
    )
    # processes
    fronts: int = _setting(
        0,
        "Processes that read and answer HTTP before the one that holds the models, and one more for gRPC; 0: none.",
        at_least=0,
        at_most=64,
    )
    grpc_engine: str = _setting(
        "aio", "What speaks gRPC: aio, or native (an extra; cheaper, without TLS).", one_of=("aio", "native")
    )
    frame_bytes_max: int = _setting(
        512 * 2**20,
        "Message between processes at most: tensors of one request or answer.",
        at_least=2**16,
        at_most=2**32 - 1,
    )
    link_in_flight_max: int = _setting(
        4096, "Requests that one front waits for at most; one more is answered 503.", at_least=1, at_most=1_000_000
    )
    link_buffer_bytes: int = _setting(
        4 * 2**20, "Unsent bytes between processes from which on a sender waits.", at_least=2**16, at_most=2**31 - 1
    )
    front_silent_ms_max: int = _setting(
        30_000,
        "A front that reports nothing for so long is killed and restarted.",
        at_least=1000,
        at_most=3_600_000,
    )
    front_restart_ms_max: int = _setting(
        5_000, "Longest pause before a front that ended is started again.", at_least=1, at_most=600_000
    )
    # operation
    heap_keep_bytes: int = _setting(
        64 * 2**20,
        "Freed memory that is kept for the next request instead of given back to the system; 0 keeps none.",
        at_least=0,
        at_most=2**31 - 1,
    )
    drain_ms: int = _setting(
        10_000,
        "Time for running requests after SIGTERM, and for those of a version that is unloaded.",
        at_least=0,
        at_most=3_600_000,
    )
    log_format: str = _setting("auto", "auto: human on a terminal, else json.", one_of=("auto", "human", "json"))
    log_level: str = _setting("info", "Least important line logged.", one_of=("debug", "info", "warning", "error"))
    readiness: str = _setting(
        "all",
        "When /readyz says ready: all models serve (one version will do), or any of them.",
        one_of=("all", "any"),
    )
    metrics_path: str = _setting("", "Another path that answers as /metrics does.", check=_metrics_path)
    access_log: bool = _setting(False, "Log a line for each request.")
    otlp_endpoint: str = _setting("", "Collector that takes a trace of each request, such as http://127.0.0.1:4318.")
    otlp_sample_percent: int = _setting(
        100, "Share of the requests traced, where the caller does not say.", at_least=0, at_most=100
    )
    otlp_queue_max: int = _setting(2048, "Spans that wait to be sent; one more is lost.", at_least=1, at_most=1_000_000)


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting's value and where it came from: `flag`, `environment`, `file` or `default`."""

    name: str
    value: Any
    origin: str
    about: str


def table() -> tuple[Field[Any], ...]:
    """The settings in their order, each with `metadata` about, at_least, at_most, one_of."""
    return fields(Settings)


TYPES: dict[str, type] = get_type_hints(Settings)


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Mapping[str, Any], file_name: str = "tidemill.toml"
) -> tuple[Settings, list[Origin]]:
    """Settle every setting. `flags` holds None for those not given. Raises `InvalidSetting`."""
    known = {entry.name for entry in table()}
    for key in file:
        if key not in known:
            raise InvalidSetting(f"{file_name}: unknown key {key!r}; `tidemill settings` lists them")
    for key in environment:
        word = key.removeprefix(ENVIRONMENT_PREFIX)
        if key.startswith(ENVIRONMENT_PREFIX) and not (word.isupper() and word.lower() in known | OTHER_WORDS):
            raise InvalidSetting(f"unknown variable {key}; `tidemill settings` lists them")
    origins = []
    for entry in table():
        variable = ENVIRONMENT_PREFIX + entry.name.upper()
        if flags.get(entry.name) is not None:
            value, origin, place = flags[entry.name], "flag", "--" + entry.name.replace("_", "-")
        elif variable in environment:
            value, origin, place = environment[variable], "environment", variable
        elif entry.name in file:
            value, origin, place = file[entry.name], "file", f"{file_name}: {entry.name}"
        else:
            value, origin, place = entry.default, "default", entry.name
        origins.append(Origin(entry.name, _checked(entry, value, place), origin, entry.metadata["about"]))
    return Settings(**{each.name: each.value for each in origins}), origins


OTHER_WORDS = frozenset({"config", "url", "key", "against_key", "ca", "client_cert", "client_key", "cache_dir"})
"""Variables that belong to the command line alone, not to the service."""


def _checked(entry: Field[Any], value: Any, place: str) -> Any:
    kind = TYPES[entry.name]
    try:
        value = _converted(kind, value)
    except ValueError as error:
        raise InvalidSetting(f"{place} = {value!r}: expected {kind.__name__}") from error
    low, high, words = (entry.metadata[key] for key in ("at_least", "at_most", "one_of"))
    if low is not None and value < low:
        raise InvalidSetting(f"{place} = {value}: must be at least {low}")
    if high is not None and value > high:
        raise InvalidSetting(f"{place} = {value}: must be at most {high}")
    if words and value not in words:
        raise InvalidSetting(f"{place} = {value!r}: must be one of {', '.join(words)}")
    if entry.metadata["check"] is not None:
        try:
            entry.metadata["check"](value)
        except ValueError as error:
            raise InvalidSetting(f"{place} = {error}") from error
    return value


def _converted(kind: type, value: Any) -> Any:
    if kind is bool and isinstance(value, str):
        word = value.lower()
        if word not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(value)
        return word in ("true", "1", "yes")
    if kind is int and not isinstance(value, str | int):
        raise ValueError(value)
    if kind is int and isinstance(value, bool):
        raise ValueError(value)
    if kind is float and (isinstance(value, bool) or not math.isfinite(float(value))):
        raise ValueError(value)
    if kind is bool and not isinstance(value, bool):
        raise ValueError(value)
    if kind is str and not isinstance(value, str):
        raise ValueError(value)
    if kind is Path:
        if not isinstance(value, str | Path):
            raise ValueError(value)
        try:
            return Path(value).expanduser()
        except RuntimeError as error:  # there is no such user
            raise ValueError(value) from error
    return kind(value)


def to_plain(settings: Settings) -> dict[str, Any]:
    """The values in a form that travels to another process."""
    values = {entry.name: getattr(settings, entry.name) for entry in table()}
    return {name: {"path": str(value)} if isinstance(value, Path) else value for name, value in values.items()}


def from_plain(values: Mapping[str, Any]) -> Settings:
    """What `to_plain` was given."""
    known: dict[str, Any] = {
        name: Path(each["path"]) if isinstance(each, dict) else each for name, each in values.items()
    }
    return Settings(**known)


def read_file(given: Path | None) -> tuple[dict[str, Any], str]:
    """The settings file and its name: `given`, else `tidemill.toml` here, else the user's. Raises `InvalidSetting`."""
    places = (
        [given] if given else [Path("tidemill.toml"), Path(platformdirs.user_config_dir("tidemill")) / "tidemill.toml"]
    )
    for place in places:
        if place.is_file():
            try:
                return tomllib.loads(place.read_text("utf-8")), str(place)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
                raise InvalidSetting(f"{place}: {error}") from error
    if given:
        raise InvalidSetting(f"there is no file {given}")
    return {}, "tidemill.toml"


def current(flags: Mapping[str, Any], config: Path | None = None) -> tuple[Settings, list[Origin]]:
    """Resolve against this process's environment and the settings file."""
    given = config or (Path(os.environ["TIDEMILL_CONFIG"]) if "TIDEMILL_CONFIG" in os.environ else None)
    file, name = read_file(given)
    return resolve(flags, os.environ, file, name)
