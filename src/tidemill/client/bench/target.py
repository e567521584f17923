"""A server that is to be measured: where it is, what it says of a model, whether it answers; the caller's process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import httpx

from tidemill.client.bench.payload import TFS_SERVICE, V2_SERVICE, speaks_grpc
from tidemill.core.errors import InvalidSetting, ServerRefused
from tidemill.core.schemas import message, pool
from tidemill.core.schemas.datatypes import TF_DATATYPES
from tidemill.core.tensor import DTYPES, Signature, TensorSpec

ASK_S_MAX = 10.0
_SIGNATURE = "serving_default"
_GRPC_SCHEMES = ("grpc", "http", "")


@dataclass(frozen=True, slots=True)
class Target:
    """`base` is `http://HOST:PORT` for REST, `HOST:PORT` for gRPC; `http_base` is where `/metrics` and the admin API
    may be, "" when unknown; `pids` are the processes whose trees are the server."""

    label: str
    door: str
    base: str
    host: str
    port: int
    model: str
    version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    http_base: str = ""
    pids: tuple[int, ...] = ()

    def owned(self, pids: tuple[int, ...]) -> Target:
        return replace(self, pids=pids)


def target(label: str, door: str, url: str, model: str, key: str | None = None, http_url: str = "") -> Target:
    """What `url` and `NAME` or `NAME@VERSION` mean at `door`. Raises `InvalidSetting`."""
    over_grpc = speaks_grpc(door)
    parts = urlsplit(url if "://" in url else f"//{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidSetting(f"url {url!r}: {error}") from error
    name, _, version = model.partition("@")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if not over_grpc:
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidSetting(f"url {url!r}: expected http://HOST[:PORT]")
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        if door == "openai":
            base, name, version = base.removesuffix("/v1"), model, ""
        port = port or (443 if parts.scheme == "https" else 80)
        return Target(label, door, base, host, port, name, version, headers, http_url or base)
    if parts.scheme not in _GRPC_SCHEMES or not host or not port:
        raise InvalidSetting(f"url {url!r}: gRPC is spoken to HOST:PORT, without TLS")
    shown = f"[{host}]" if ":" in host else host
    return Target(label, door, f"{shown}:{port}", host, port, name, version, headers, http_url)


def signature_of(where: Target) -> Signature:
    """What the server says the model takes. Raises `ServerRefused` when it is not there, or says nothing of use."""
    if where.door == "v2-grpc":
        return _v2_grpc(where)
    if where.door == "tfs-grpc":
        return _tfs_grpc(where)
    name = quote(where.model, safe="")
    version = f"/versions/{quote(where.version)}" if where.version else ""
    if where.door == "tfs":
        return _tfs(where, f"{where.base}/v1/models/{name}{version}/metadata")
    told = get_json(f"{where.base}/v2/models/{name}{version}", where.headers)
    return _guarded(where, lambda: Signature(_v2_specs(told["inputs"]), _v2_specs(told.get("outputs", []))))


def door_of(url: str, model: str, key: str | None) -> str:
    """The door that suits `model` at `url`: `openai` for one that speaks, else `v2`; `v2` too where nobody tells.

    What speaks has no tensors to take, or is known at OpenAI's address alone.
    """
    try:
        where = target("this", "v2", url, model, key)
        name = quote(where.model, safe="")
        with httpx.Client(headers=dict(where.headers), timeout=ASK_S_MAX) as client:
            answer = client.get(f"{where.base}/v2/models/{name}")
            if answer.status_code == 200:
                return "v2" if answer.json()["inputs"] else "openai"
            listed = client.get(f"{where.base.removesuffix('/v1')}/v1/models")
        known = {each["id"] for each in listed.json()["data"]} if listed.status_code == 200 else set()
        return "openai" if model in known else "v2"
    except (InvalidSetting, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return "v2"  # which says what is wrong when it is asked


def tokens_of(where: Target, text: str) -> list[int]:
    """The tokens of `text` as the server tells them at `/v1/tokenize`; none where it does not."""
    try:
        asked = {"model": where.model, "prompt": text}
        answer = httpx.post(f"{where.base}/v1/tokenize", json=asked, headers=dict(where.headers), timeout=ASK_S_MAX)
        told = answer.json()["tokens"] if answer.status_code == 200 else []
        return [int(each) for each in told]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return []


def get_json(url: str, headers: Mapping[str, str]) -> Any:
    """Raises `ServerRefused`."""
    try:
        answer = httpx.get(url, headers=dict(headers), timeout=ASK_S_MAX)
    except httpx.ConnectError as error:
        raise ServerRefused(f"nothing listens at {url}: start a server there, or leave --url out") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerRefused(f"{url} did not answer: {error or type(error).__name__}") from error
    try:
        value = answer.json()
    except ValueError as error:
        raise ServerRefused(f"{url} answered {answer.status_code} and no JSON; is it the right server?") from error
    if answer.is_error:
        said = value.get("error", value) if isinstance(value, dict) else value
        raise ServerRefused(f"{url} answered {answer.status_code}: {said}")
    return value


def _v2_specs(told: Any) -> tuple[TensorSpec, ...]:
    return tuple(_spec(each["name"], each["datatype"], [int(side) for side in each["shape"]]) for each in told)


def _spec(name: str, datatype: str, shape: list[int] | None) -> TensorSpec:
    if datatype not in DTYPES:
        raise ValueError(f"{name!r} has datatype {datatype!r}")
    return TensorSpec(name, datatype, None if shape is None else tuple(side if side >= 0 else -1 for side in shape))


def _tfs(where: Target, url: str) -> Signature:
    told = get_json(url, where.headers)

    def specs(infos: Any) -> tuple[TensorSpec, ...]:
        numbers = pool().FindEnumTypeByName("tensorflow.DataType").values_by_name
        found = []
        for name, info in infos.items():
            shape = info.get("tensor_shape", {})
            dims = None if shape.get("unknown_rank") else [int(each["size"]) for each in shape.get("dim", [])]
            found.append(_spec(name, TF_DATATYPES[numbers[info["dtype"]].number], dims))
        return tuple(found)

    def read() -> Signature:
        one = told["metadata"]["signature_def"]["signature_def"][_SIGNATURE]
        return Signature(specs(one["inputs"]), specs(one["outputs"]))

    return _guarded(where, read)


def _v2_grpc(where: Target) -> Signature:
    request = message("inference.ModelMetadataRequest")(name=where.model, version=where.version)
    told = message("inference.ModelMetadataResponse").FromString(
        _call(where, V2_SERVICE + "ModelMetadata", request.SerializeToString())
    )

    def specs(several: Any) -> tuple[TensorSpec, ...]:
        return tuple(_spec(each.name, each.datatype, list(each.shape)) for each in several)

    return _guarded(where, lambda: Signature(specs(told.inputs), specs(told.outputs)))


def _tfs_grpc(where: Target) -> Signature:
    request = message("tensorflow.serving.GetModelMetadataRequest")(metadata_field=["signature_def"])
    request.model_spec.name = where.model
    told = message("tensorflow.serving.GetModelMetadataResponse").FromString(
        _call(where, TFS_SERVICE + "GetModelMetadata", request.SerializeToString())
    )

    def specs(infos: Any) -> tuple[TensorSpec, ...]:
        found = []
        for name, info in infos.items():
            shape = info.tensor_shape
            dims = None if shape.unknown_rank else [each.size for each in shape.dim]
            found.append(_spec(name, TF_DATATYPES[info.dtype], dims))
        return tuple(found)

    def read() -> Signature:
        known = message("tensorflow.serving.SignatureDefMap").FromString(told.metadata["signature_def"].value)
        if _SIGNATURE not in known.signature_def:
            raise KeyError(_SIGNATURE)
        one = known.signature_def[_SIGNATURE]
        return Signature(specs(one.inputs), specs(one.outputs))

    return _guarded(where, read)


def _call(where: Target, method: str, body: bytes) -> bytes:
    with grpc.insecure_channel(where.base) as channel:
        try:
            answer: bytes = channel.unary_unary(method)(body, timeout=ASK_S_MAX, metadata=tuple(where.headers.items()))
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code is grpc.StatusCode.UNAVAILABLE:
                raise ServerRefused(f"nothing that speaks gRPC listens at {where.base}: {details}") from error
            raise ServerRefused(f"{where.base} answered {code.name}: {details}") from error
        return answer


def _guarded(where: Target, read: Any) -> Signature:
    """What a server says is from outside: whatever is wrong with it is told, with the place."""
    try:
        signature: Signature = read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerRefused(
            f"{where.base} says of {where.model!r} what bench cannot read: {error}; try another --door"
        ) from error
    if not signature.inputs:
        raise ServerRefused(
            f"{where.base} says that {where.model!r} takes no inputs; a language model is asked by --door openai"
        )
    return signature
