"""What a model reads, in a word, and the media type of what is sent to it; pure, runs in the console's process."""

from __future__ import annotations

from enum import StrEnum

from tidemill.console.snapshot import Model


class Kind(StrEnum):
    """What a person gives to a model."""

    TEXT = "text"
    PICTURE = "picture"
    SOUND = "sound"
    TABLE = "table"
    BYTES = "bytes"
    TENSORS = "tensors"
    CHAT = "chat"


WRITTEN = (Kind.TEXT, Kind.TABLE, Kind.BYTES, Kind.TENSORS)
"""Those that are written into a box; the others come from a file alone."""
FILES = {
    Kind.TEXT: ".txt,.md,text/plain",
    Kind.PICTURE: "image/png,image/jpeg",
    Kind.SOUND: ".wav,audio/wav",
    Kind.TABLE: ".csv,text/csv",
    Kind.BYTES: "",
    Kind.TENSORS: ".json,application/json",
    Kind.CHAT: "",
}
"""Which files the browser offers to open; "" is any."""
_TYPES = {
    Kind.TEXT: "text/plain; charset=utf-8",
    Kind.TABLE: "text/csv",
    Kind.BYTES: "application/octet-stream",
    Kind.TENSORS: "application/json",
}


def kind_of(accepts: tuple[str, ...]) -> Kind:
    """By the media types that a model's steps read; without steps it takes tensors alone."""
    if "*/*" in accepts:
        return Kind.BYTES
    for beginning, kind in (("image/", Kind.PICTURE), ("audio/", Kind.SOUND), ("text/csv", Kind.TABLE)):
        if any(each.startswith(beginning) for each in accepts):
            return kind
    if any(each.startswith("text/") for each in accepts):
        return Kind.TEXT
    return Kind.BYTES if accepts else Kind.TENSORS


def ways(model: Model) -> tuple[Kind, ...]:
    """How `model` can be asked, the way for people first."""
    if model.speaks is not None:
        return (Kind.CHAT,)
    first = kind_of(model.accepts)
    return (first,) if first is Kind.TENSORS else (first, Kind.TENSORS)


def media_type(kind: Kind, data: bytes, told: str = "") -> str:
    """What `data` is sent as. `told` is the browser's word, which stands where the bytes do not say better."""
    if kind in _TYPES:
        return _TYPES[kind]
    if data.startswith(b"\x89PNG"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    return told or "application/octet-stream"
