from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import form
from tidemill.core.errors import MalformedRequest
from tidemill.doors.multipart import PARTS_MAX, file_of


def test_the_file_among_plain_fields_is_found_with_its_type() -> None:
    told = form({"file": ("tide.png", b"\x89PNG\r\n\r\n--tide", "image/png")}, {"note": "high", "more": ""})
    assert file_of(*told) == ("image/png", b"\x89PNG\r\n\r\n--tide")


@pytest.mark.parametrize(
    ("name", "media"),
    [("a.WAV", "audio/wav"), ("a.jpg", "image/jpeg"), ("a.csv", "text/csv"), ("a.txt", "text/plain"), ("a", None)],
)
@pytest.mark.parametrize("said", ["", "application/octet-stream"])
def test_the_name_tells_the_type_where_the_part_does_not(name: str, media: str | None, said: str) -> None:
    assert file_of(*form({"file": (name, b"x", said)}))[0] == (media or "application/octet-stream")


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_any_content_comes_back_as_it_was(content: bytes, other: bytes) -> None:
    if b"\r\n--tide-7MA4YWxk" in content:
        return
    assert file_of(*form({"f": ("x.bin", content, "audio/wav")}, {"o": other.hex()}))[1] == content


WHOLE = form({"file": ("a.png", b"x" * 50, "image/png")})


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("multipart/form-data", WHOLE[1], "no boundary"),
        (WHOLE[0] + "x", WHOLE[1], "cut short"),
        (WHOLE[0], WHOLE[1][:-8], "cut short"),
        (WHOLE[0], b"", "cut short"),
        (*form({}, {"a": "b"}), "holds 0 files, expected one"),
        (*form({"a": ("a.png", b"", "image/png"), "b": ("b.png", b"", "image/png")}), "holds 2 files"),
        (*form({}, {str(number): "x" for number in range(PARTS_MAX + 2)}), f"more than {PARTS_MAX} parts"),
        (WHOLE[0], WHOLE[1].replace(b"\r\n\r\n", b"\r\n"), "no end of its headers"),
    ],
)
def test_a_form_without_one_whole_file_is_refused(content_type: str, body: bytes, says: str) -> None:
    with pytest.raises(MalformedRequest, match=says):
        file_of(content_type, body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        file_of("multipart/form-data; boundary=b", b"--b\r\n" + body.replace(b"--b", b"--c"))
