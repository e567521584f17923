"""What a model reads, and as what it is sent."""

from __future__ import annotations

import pytest

from tidemill.console.kinds import Kind, kind_of, media_type, ways
from tidemill.console.snapshot import Model


@pytest.mark.parametrize(
    ("accepts", "kind"),
    [
        ((), Kind.TENSORS),
        (("image/png", "image/jpeg"), Kind.PICTURE),
        (("audio/wav", "audio/x-wav"), Kind.SOUND),
        (("text/csv",), Kind.TABLE),
        (("text/plain",), Kind.TEXT),
        (("*/*",), Kind.BYTES),
        (("application/x-new",), Kind.BYTES),
    ],
)
def test_the_kind_is_told_by_what_the_steps_read(accepts: tuple[str, ...], kind: Kind) -> None:
    assert kind_of(accepts) is kind
    assert ways(Model("m", 1, "AVAILABLE", accepts=accepts)) == tuple(dict.fromkeys((kind, Kind.TENSORS)))


@pytest.mark.parametrize(
    ("kind", "data", "told", "media"),
    [
        (Kind.PICTURE, b"\x89PNG\r\n", "", "image/png"),
        (Kind.PICTURE, b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"),
        (Kind.PICTURE, b"RIFF....WEBP", "image/webp", "image/webp"),
        (Kind.PICTURE, b"?", "", "application/octet-stream"),
        (Kind.SOUND, b"RIFF....WAVE", "audio/x-wav", "audio/wav"),
        (Kind.TEXT, b"M\xc3\xbchle", "text/markdown", "text/plain; charset=utf-8"),
        (Kind.TABLE, b"a,b", "application/vnd.ms-excel", "text/csv"),
        (Kind.TENSORS, b"{}", "", "application/json"),
        (Kind.BYTES, b"\x89PNG", "image/png", "application/octet-stream"),
    ],
)
def test_the_bytes_tell_the_type_before_the_browser_does(kind: Kind, data: bytes, told: str, media: str) -> None:
    assert media_type(kind, data, told) == media
