"""What the doors share of a request's way in: identifiers, deadlines and the request itself; pure but for the clock."""

from __future__ import annotations

import itertools
import os
import time
from hashlib import blake2b

from tidemill.core.contracts import Fleet, Served
from tidemill.core.errors import Forbidden, MalformedRequest, NotOffered, TidemillError, UnknownModel, UnknownVersion
from tidemill.core.request import Caller, InferenceRequest, Work
from tidemill.observe import trace

REQUEST_ID_CHARACTERS_MAX = 128
_BOOT = f"{int(time.time() * 1000):012x}{os.urandom(5).hex()}"
_COUNT = itertools.count()


def fresh_request_id() -> str:
    """Unique among all processes, and ordered in time within one, so that the ledger's index grows at its end."""
    return f"{_BOOT}{next(_COUNT):010x}"


def checked_request_id(given: str) -> str:
    """The caller's own id. Raises `MalformedRequest` for one that could not stand in a header or a log."""
    if len(given) > REQUEST_ID_CHARACTERS_MAX or not given.isascii() or not given.isprintable():
        raise MalformedRequest(
            f"x-request-id has {len(given)} characters; expected at most {REQUEST_ID_CHARACTERS_MAX}, printable ASCII"
        )
    return given


def check_admin(caller: Caller) -> None:
    """Raises `Forbidden` for a key without `--admin`."""
    if not caller.admin:
        raise Forbidden(
            f"key {caller.key} may not use the admin API; `tidemill keys create --admin` makes one that may"
        )


def check_tensors(served: Served) -> None:
    """Raises `NotOffered` for a language model, which takes no tensors, with the place where it is asked."""
    if served.speaks is not None and not served.signature.inputs:
        raise NotOffered(
            f"model {served.name!r} is a language model and takes no tensors; ask it at /v1/chat/completions,"
            f" /v1/completions or /v2/models/{served.name}/generate"
        )


def charge_id(caller: Caller, given: str, model: str, version: int, body: bytes) -> str:
    """The name of the charge for a caller's own request id.

    The same caller sending the same bytes under the same id again is charged once. Other bytes under the same id are
    another request: a client that sends one constant id is still charged for each of its questions.
    """
    digest = blake2b(body, digest_size=16)
    digest.update(f"{caller.tenant}\0{caller.key}\0{given}\0{model}\0{version}".encode())
    return digest.hexdigest()


def deadline(timeout_s: float | None, timeout_s_max: float, since: float | None = None) -> float:
    """On the clock of `time.monotonic`. A caller may ask for less than the service allows, not for more.

    His own time runs from `since`, when the head of his request was there (None: now), the service's from now: how long
    a body takes to come is bounded by itself.
    """
    now = time.monotonic()
    if timeout_s is None:
        return now + timeout_s_max
    return min((now if since is None else since) + max(timeout_s, 0.0), now + timeout_s_max)


def version_of(model: str, version: str | None) -> int | None:
    """A version as it stands in an address or a message; None and "" are the newest. Raises `UnknownVersion`."""
    if not version:
        return None
    if not _is_version(version):
        raise UnknownVersion(f"model {model!r} has no version {version[:40]!r}; versions are whole numbers")
    return int(version)


def named(fleet: Fleet, name: str) -> Served:
    """The model that is called `name` or, where none is, `M@V` or `M@label`. Raises what `Fleet.find` raises, with its
    `param`."""
    try:
        return _named(fleet, name)
    except TidemillError as error:
        error.param = "model"
        raise


def _named(fleet: Fleet, name: str) -> Served:
    try:
        return fleet.find(name)
    except UnknownModel:
        model, at, which = name.rpartition("@")
        if not at or not model:
            raise
        return fleet.find(model, *((int(which), None) if _is_version(which) else (None, which)))


def alias_of(fleet: Fleet, name: str) -> str:
    """The alias by which `name` (`M`, `M@V`, `M@label`) names a model, "" where that is its own name."""
    if name in fleet.aliases:
        return name
    model = name.rpartition("@")[0]
    return model if model in fleet.aliases else ""


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def inference_request(
    caller: Caller,
    served: Served,
    work: Work,
    given_id: str,
    request_id: str,
    body: bytes,
    until: float,
    alias: str = "",
) -> InferenceRequest:
    """`given_id` is the caller's own request or idempotency id, "" when there is none."""
    name, version = served.name, served.version
    named = charge_id(caller, given_id, name, version, body) if given_id else request_id
    if trace.STATE.recorder is None:
        return InferenceRequest(name, version, work, request_id, named, until, alias=alias)
    trace.tell({"tidemill.model": name, "tidemill.version": version})
    return InferenceRequest(name, version, work, request_id, named, until, trace.parent(), alias=alias)
