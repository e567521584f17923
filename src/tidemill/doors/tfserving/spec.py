"""Which model, version and signature is asked for, as TensorFlow Serving tells it; used over REST and gRPC, on the
owner's loop."""

from __future__ import annotations

from typing import Any

from tidemill.core.contracts import Fleet, Served
from tidemill.core.errors import UnknownSignature, UnknownVersion
from tidemill.core.tensor import Signature
from tidemill.core.text import short

DEFAULT_SIGNATURE = "serving_default"
STATES = {"FAILED": "END"}
"""Our words for the life of a version -> TensorFlow Serving's, where they differ."""


def check_signature(signature: Signature, asked: Any) -> None:
    """Each model has one signature, which answers to `serving_default` and to its own name. Raises
    `UnknownSignature`."""
    if asked not in ("", DEFAULT_SIGNATURE, signature.name):
        if asked in signature.others:
            raise UnknownSignature(
                f"signature {short(asked)} is in this model's file and is not served, {signature.name!r} is; serve it"
                f" as a second model, whose tidemill.toml says signature = {short(asked)}"
            )
        others = f"; its file holds {', '.join(map(repr, signature.others))} besides" if signature.others else ""
        raise UnknownSignature(f"there is no signature {short(asked)}; this model has {signature.name!r}{others}")


def versions(fleet: Fleet, name: str, version: int | None, label: str | None) -> list[Served]:
    """Those whose status is asked for, oldest first: one by number or by label, or all. Raises what `Fleet.find`
    raises."""
    if label is not None:
        return [fleet.find(name, label=label)]
    found = [each for each in fleet.versions(name) if version in (None, each.version)]
    if not found:
        raise UnknownVersion(f"model {name!r} has no version {version}")
    return found


def health(state: str) -> str:
    """The error code of a version in `state`, by name."""
    return "UNKNOWN" if state == "FAILED" else "OK"
