"""Raw bodies in, JSON out: pictures, sounds, tables and texts for models that have steps; pure.

A dialect of `:predict` beside TensorFlow Serving's. JSON bodies are tensors, whatever the model; so is what has no
type, or the one that curl gives to `-d`, or a type that JSON is often sent under and this model's steps do not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidemill.core.contracts import Served
from tidemill.core.errors import UnsupportedMedia
from tidemill.core.request import RAW, Predict
from tidemill.core.tensor import Signature, Tensors
from tidemill.core.text import short
from tidemill.doors import multipart
from tidemill.doors.head import Head

JSON = (b"content-type", b"application/json")
TENSORS = frozenset({"", "application/json", "application/x-www-form-urlencoded"})
EITHER = frozenset({"text/plain", "application/octet-stream"})
"""JSON is also sent as one of these, by `fetch` for one."""
FORM = "multipart/form-data"


class Question:
    """A raw request. `timeout_s` is the header's alone."""

    __slots__ = ("timeout_s", "work")

    def __init__(self, work: Predict) -> None:
        self.work = work
        self.timeout_s: float | None = None


def wanted(served: Served, content_type: str) -> bool:
    """Whether a body of `content_type` is for the model's steps. Raises `UnsupportedMedia` where it is for nobody."""
    media = media_of(content_type)
    if media in TENSORS or media.endswith("+json"):
        return False
    accepts = served.accepts
    if takes(accepts, media) or (media == FORM and accepts):
        return True
    if media in EITHER:
        return False
    raise unsupported(served.name, media, accepts)


def media_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def takes(accepts: Sequence[str], media: str) -> bool:
    return media in accepts or "*/*" in accepts


def unsupported(model: str, media: str, accepts: Sequence[str]) -> UnsupportedMedia:
    if not accepts:
        return UnsupportedMedia(
            f"model {model!r} takes tensors as application/json, not {short(media)}: its tidemill.toml has no [[pre]]"
        )
    return UnsupportedMedia(
        f"model {model!r} does not read {short(media)}; it reads {', '.join(accepts)}, one of these as a file in"
        f" {FORM}, and tensors as application/json"
    )


def work(body: bytes, media: str) -> Predict:
    array = np.empty(1, object)
    array[0] = body
    return Predict({RAW: array}, (), media)


class RawDialect:
    """`POST /v1/models/M[/versions/V]:predict` with anything but JSON."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def question(self, signature: Signature, body: bytes, head: Head) -> Question:
        media = media_of(head.content_type)
        if media == FORM:
            media, body = multipart.file_of(head.content_type, body)
            if not takes(self._served.accepts, media):
                raise unsupported(self._served.name, media, self._served.accepts)
        return Question(work(body, media))

    def answer(self, served: Served, asked: Any, tensors: Tensors) -> tuple[list[tuple[bytes, bytes]], bytes]:
        told: bytes = tensors[RAW][0]
        return [JSON], told
