"""What a service of ours charges for a model, asked of its admin API; runs in the caller's process."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from tidemill.core.price import Tariff


class _Model(msgspec.Struct, frozen=True):
    name: str
    version: int
    state: str = ""
    price_nanos: int = 0
    prompt_token_nanos: int = 0
    completion_token_nanos: int = 0
    cached_token_nanos: int = 0


class _Service(msgspec.Struct, frozen=True):
    charging: bool = False


class _Overview(msgspec.Struct, frozen=True):
    service: _Service
    models: tuple[_Model, ...] = ()


def tariff(http: httpx.Client, model: str) -> Tariff | None:
    """The prices in force for `NAME` or `NAME@VERSION`. None where nobody tells: another's server, a key without the
    right to ask, a label, a model that is not there; and where nothing is charged at all."""
    root = str(http.base_url).rstrip("/").removesuffix("/v1")
    try:
        reply = http.get(f"{root}/admin/v1/overview")
        told: Any = msgspec.json.decode(reply.content, type=_Overview) if reply.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError):
        return None
    if told is None or not told.service.charging:
        return None
    name, _, version = model.partition("@")
    found = [
        each
        for each in told.models
        if each.name == name and version in ("", str(each.version)) and each.state == "AVAILABLE"
    ]
    if not found:
        return None
    newest = max(found, key=lambda each: each.version)
    return Tariff(
        newest.price_nanos, newest.prompt_token_nanos, newest.completion_token_nanos, newest.cached_token_nanos
    )
