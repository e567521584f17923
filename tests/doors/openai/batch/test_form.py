"""A form is read the same however its bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import CallerError, MalformedRequest
from tidemill.doors.openai.batch.form import Form

TYPE = 'multipart/form-data; boundary="a b"'
# What looks like the boundary, and is not quite.
PARTS = st.lists(st.sampled_from([b"\r\n", b"--", b"a b", b"\r\n--a ", b"{}", b"\r", b"\n", "größe".encode()]))


def form_of(file: bytes, purpose: str = "batch") -> bytes:
    return (
        b'--a b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose.encode() + b"\r\n"
        b'--a b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
        b"Content-Type: application/jsonl\r\n\r\n" + file + b"\r\n--a b--\r\n"
    )


@given(PARTS.map(b"".join).filter(lambda file: b"\r\n--a b" not in b"\r\n" + file), st.data())
def test_a_file_comes_whole_however_the_body_is_cut(file: bytes, data: st.DataObject) -> None:
    body = form_of(file)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    form = Form(TYPE)
    found = b"".join(form.feed(body[start:end]) for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True))
    form.end()
    assert found == file
    assert form.fields == {"purpose": "batch"}
    assert form.file_name == "a.jsonl"


@given(st.integers(0, 200))
def test_a_form_that_was_cut_short_is_refused(length: int) -> None:
    body = form_of(b"{}\n" * 10)
    form = Form(TYPE)
    form.feed(body[: min(length, len(body) - 5)])
    with pytest.raises(MalformedRequest, match="cut short"):
        form.end()


@given(st.lists(st.sampled_from([b"--a b", b"\r\n", b"--", b'content-disposition: form-data; name="x"', b"y" * 3000])))
def test_what_is_no_form_is_refused_in_bounded_memory(parts: list[bytes]) -> None:
    form = Form(TYPE)

    def feed() -> None:
        for part in parts:
            form.feed(part)
            assert len(form._held) <= 8192 + 3000 + 20
        form.end()

    with pytest.raises(CallerError):
        feed()


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_a_body_that_is_no_form_is_refused_by_its_type(content_type: str) -> None:
    with pytest.raises(MalformedRequest):
        Form(content_type)
