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


def chosen(signature: Signature, asked: Any) -> Signature:
    """The one that is called `asked`, of a model's own and its further ones. The model's own answers to "" too, and to
    `serving_default` where no other is called so. Raises `UnknownSignature`."""
    if asked in ("", signature.name):
        return signature
    for each in signature.further:
        if each.name == asked:
            return each
    if asked == DEFAULT_SIGNATURE:
        return signature
    for name, reason in signature.left_out:
        if name == asked:
            raise UnknownSignature(f"signature {short(asked)} of this model is not served: {reason}")
    names = ", ".join(repr(each.name) for each in all_of(signature))
    left = f"; not served are {', '.join(repr(name) for name, _ in signature.left_out)}" if signature.left_out else ""
    raise UnknownSignature(f"there is no signature {short(asked)}; this model has {names}{left}")


def all_of(signature: Signature) -> tuple[Signature, ...]:
    """The signatures of a model that are served, its own first."""
    return (signature, *signature.further)


def word_for(signature: Signature, among: Signature) -> str:
    """What `Predict` calls it: "" for the model's own."""
    return "" if signature is among else signature.name


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
