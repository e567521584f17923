"""A model as it lies on disk; what compress, compile and deploy hand to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tidemill.core.price import Price
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.core.versions import VersionPolicy, Versions

__all__ = [
    "Batching",
    "Each",
    "Embedding",
    "Indexed",
    "ModelConfig",
    "ModelEntry",
    "ModelPackage",
    "Padding",
    "Price",
    "Remote",
    "Stage",
    "Upstream",
    "VersionPolicy",
    "Versions",
    "WarmUp",
    "WarmUpInput",
    "overlaid",
]


class Padding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[batching.padding]` of `tidemill.toml`: requests of different lengths run together, padded to the longest.

    `mask` is the input that tells real places from padding; it is padded with 0, as every input is that `values` does
    not name. `waste_max` is the share of a batch's places that may be padding.
    """

    mask: str
    axis: Annotated[int, msgspec.Meta(ge=1, le=31)] = 1
    values: dict[str, float] = {}
    waste_max: Annotated[float, msgspec.Meta(ge=0.0, le=0.99)] = 0.5


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[batching]` of `tidemill.toml`.

    `batched` overrules what the signature tells: true for a model of free shape whose dimension 0 is a batch.
    `max_batch` is in rows, `queue_max` in requests; None takes the service's default. `max_delay_ms` is how long a
    batch may wait for more rows while an engine is free, None the service's; `preferred` are the sizes in rows that it
    waits for, rather than for a full batch.
    """

    batched: bool | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    queue_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    max_delay_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] | None = None
    preferred: tuple[Annotated[int, msgspec.Meta(ge=1, le=65536)], ...] = ()
    padding: Padding | None = None


class Embedding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[embed]` of `tidemill.toml`: the model makes a vector of a text, by the tokenizer beside it.

    `output` is the one that holds the vectors, [N, D], or the states of the tokens, [N, T, D], which `pooling` makes a
    vector of: their mean, the first token's or the last one's. "" takes the model's only output of two dimensions, else
    its first of three. With `normalise` vectors have length 1. A text longer than `tokens_max` is cut where `truncate`
    says so, else refused. `batch_tokens` are the places of one batch, padding included.
    """

    output: str = ""
    pooling: Literal["mean", "first", "last"] = "mean"
    normalise: bool = True
    tokens_max: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 512
    truncate: bool = True
    batch_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**20)] = 8192
    tokenizer: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "tokenizer.json"
    ids: str = "input_ids"
    mask: str = "attention_mask"
    types: str = "token_type_ids"


class Each(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[each]` of `tidemill.toml`: one call for each row of what the steps made, instead of one for all.

    `rows` names the tensor. `carry` maps an input to the output that it takes from the call before: then the calls
    follow one another.
    """

    rows: str
    carry: dict[str, str] = {}


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[remote.upstream]]`: a server that answers, and its share of the requests; what is "" is as `[remote]` says."""

    url: str
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    model: str = ""
    key_env: str = ""
    key_file: str = ""


class Remote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[remote]` of `tidemill.toml`: other servers answer for this model.

    `model` is what they call it, "" as here. Their key is in the environment's variable `key_env` or in the file
    `key_file`; `ca_file` signs their certificates, "" the usual authorities. Of OpenAI's protocol: whether the model
    `generates`, `chats` and `embeds`; whether its `tools` go there as they were asked (`native`) or are put into words
    here; how many tokens prompt and answer may have; `extensions`: the upstreams take vLLM's names beside OpenAI's;
    `tokenizes`: they tokenise, as vLLM does; `tokenizer`: a file beside this one by which tokens are counted that they
    did not count, and texts tokenised. Of V2: `binary` tensors, else JSON. `tries_max`: upstreams asked for one
    request; `retry_share`: of all requests, how many may be asked again. A sick upstream is left alone for `pause_s`
    after `failures_max` in a row, or until it answers a look at its health, every `health_s` (0: none).
    """

    protocol: Literal["openai", "v2", "tfserving"]
    upstream: Annotated[tuple[Upstream, ...], msgspec.Meta(min_length=1, max_length=64)]
    model: str = ""
    key_env: str = ""
    key_file: str = ""
    ca_file: str = ""
    generates: bool = True
    chats: bool = True
    embeds: bool = False
    tools: Literal["native", "words"] = "native"
    context_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 131_072
    dimensions: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 0
    extensions: bool = False
    tokenizes: bool = False
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    tokenizer: str = ""
    binary: bool = True
    connect_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)] = 2_000
    read_ms: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)] = 60_000
    health_s: Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)] = 5.0
    tries_max: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    retry_share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.2
    failures_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    pause_s: Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)] = 10.0
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    answer_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=2**32)] = 256 * 2**20


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[stage]]` of an ensemble's `tidemill.toml`: a model that is asked, and steps around it.

    `inputs` maps the model's inputs to values, `outputs` new values to the model's outputs; what is not named keeps its
    name. With `for_each` the stage runs once for each element of that list or row of that tensor, which `before` and
    `after` know as `element`; then `collect` makes lists, and `join` tensors, of what each run gave: value -> value of
    the run.
    """

    model: str
    version: int | None = None
    label: str | None = None
    before: tuple[dict[str, Any], ...] = ()
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    after: tuple[dict[str, Any], ...] = ()
    for_each: str = ""
    element: str = "element"
    collect: dict[str, str] = {}
    join: dict[str, str] = {}


class WarmUpInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[warm_up.inputs.NAME]`: what one input holds. `shape` is that of one row where the model batches, without the
    batch dimension. `file`, of the model's folder `warmup`, holds the values themselves, little-endian and in row-major
    order, strings each behind its length in four bytes; without one they are made up: `random` numbers are small."""

    datatype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)], ...] = ()
    data: Literal["zeros", "random"] = "zeros"
    file: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class WarmUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[warm_up]]` of `tidemill.toml`: a request that the model answers `count` times before it serves. `rows` is its
    batch: so many times the one row that `inputs` tell."""

    inputs: dict[str, WarmUpInput]
    name: Annotated[str, msgspec.Meta(max_length=256)] = ""
    rows: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 1
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tidemill.toml` beside a model. `inputs` and `outputs` declare the signature of an `echo` model only.

    `file` names the model's file in its version's folder, where that holds several. `threads` and `instances` are
    those of the settings; None takes the service's. `signature` is the one of a SavedModel's several that answers
    those who name none; None takes `serving_default`, or the only one. `signatures` are those that are served beside
    it; None takes all that the engine can run. `providers` are onnxruntime's, the first
    that can run an operator does, `cpu` is always the last; None takes the service's. `openvino_precision` is what
    OpenVINO computes floats in ("auto": as it likes best here); None takes the service's.
    `labels` are the names of the classes that the model's scores stand for, in their order; else the lines of
    `labels.txt` in the version's folder are. `pre` and `post` are the steps from what a person sends to tensors, and
    from tensors to an answer; `each` and `stage` say how the model, or models, are asked between them. `embed` lets it
    answer texts with vectors besides. `remote` says which other servers answer for the engine `remote`, `vllm` are
    options of the engine `vllm` by vLLM's own flag names. `warm_up` are requests that it answers before it serves.
    """

    engine: str | None = None
    file: str | None = None
    signature: str | None = None
    signatures: tuple[str, ...] | None = None
    openvino_precision: Literal["f32", "bf16", "auto"] | None = None
    providers: tuple[str, ...] | None = None
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    instances: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    batching: Batching = Batching()
    price: Price = Price()
    labels: tuple[str, ...] = ()
    versions: Versions = Versions()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    pre: tuple[dict[str, Any], ...] = ()
    each: Each | None = None
    embed: Embedding | None = None
    post: tuple[dict[str, Any], ...] = ()
    stage: tuple[Stage, ...] = ()
    remote: Remote | None = None
    vllm: dict[str, Any] = {}
    warm_up: Annotated[tuple[WarmUp, ...], msgspec.Meta(max_length=1000)] = ()


class ModelPackage(msgspec.Struct, frozen=True):
    """One version of a model: where it lies, what its bytes are, and how it wants to run.

    `path` is the file or folder that the engine opens. `format` is one of `repository.formats.FORMATS`. `signature` is
    what the file itself declares, where an engine cannot be trusted to read it. `bounded` tells that how long the model
    takes depends on the shapes of its inputs alone, never on their values. `place` is the folder of the version, or the
    bare file that is one; `path` lies in it, or is it.
    """

    name: str
    version: int
    path: Path
    format: str
    size_bytes: int
    config: ModelConfig = ModelConfig()
    signature: Signature | None = None
    bounded: bool = False
    source: str = ""
    place: Path | None = None


class ModelEntry(msgspec.Struct, frozen=True):
    """One model of a list of models to serve, as a config file or a reload names it.

    `base_path` is the folder of its versions, the one above it, or a model itself. `labels` maps a label to a version;
    `policy` (None: the model's own, else the service's), `labels` and `config` come before the model's own
    `tidemill.toml`, where they say something.
    """

    name: str
    base_path: Path
    policy: VersionPolicy | None = None
    labels: dict[str, int] = {}
    config: ModelConfig | None = None


class Indexed(msgspec.Struct, frozen=True):
    """A version in the index of a running service; `state` and `reason` are `Served`'s, "" for one not loaded."""

    name: str
    version: int
    state: str
    reason: str = ""


_S = TypeVar("_S", bound=msgspec.Struct)


def overlaid(below: _S, above: _S | None) -> _S:
    """`above` where it says something (differs from its default), else `below`; field by field, and so within the
    tables that are always there."""
    if above is None:
        return below
    silent = type(above)()
    changes = {}
    for field in above.__struct_fields__:
        said, had, default = (getattr(each, field) for each in (above, below, silent))
        if isinstance(default, msgspec.Struct):
            changes[field] = overlaid(had, said)
        elif said != default:
            changes[field] = said
    return msgspec.structs.replace(below, **changes)
