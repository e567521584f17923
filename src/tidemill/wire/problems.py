"""Errors of the tree as headers of frames and back; used at both ends of a link."""

from __future__ import annotations

import msgspec

from tidemill.core.errors import ServiceError, TidemillError, leaves


class Problem(msgspec.Struct, frozen=True, array_like=True):
    """An error on the wire."""

    code: str
    message: str
    retry_after_s: float | None = None
    param: str | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Problem)
_CLASSES: dict[str, type[TidemillError]] = {}


def header_of(error: TidemillError) -> bytes:
    return _ENCODER.encode(problem_of(error))


def problem_of(error: TidemillError) -> Problem:
    message = error.message.encode("utf-8", "replace").decode()
    return Problem(error.code, message, error.retry_after_s, error.param)


def error_of(header: bytes) -> TidemillError:
    """An error of the same class. Raises `msgspec.DecodeError`."""
    return error_from(_DECODER.decode(header))


def error_from(problem: Problem) -> TidemillError:
    """An error of the same class."""
    if problem.code not in _CLASSES:
        # The first class of a code is the one nearest to the root; those of the root's own code are ours.
        known: list[type[TidemillError]] = [ServiceError, *leaves()]
        for each in known:
            _CLASSES.setdefault(each.code, each)
    kind = _CLASSES.get(problem.code, ServiceError)
    return kind(problem.message, retry_after_s=problem.retry_after_s, param=problem.param)
