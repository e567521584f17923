"""An answer is the same however the network cuts it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.http1 import AnswerReader, BadAnswer, Target, header, header_lines, request_head
from tidemill.core.errors import InvalidSetting


def _sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Id: 7\r\n\r\n" % len(body) + body


def _chunked(parts: list[bytes], trailer: bytes) -> bytes:
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return b"HTTP/1.1 200 OK\r\nx-id: 7\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


def _fed(stream: bytes, cuts: list[int]) -> AnswerReader:
    reader = AnswerReader()
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    wholes = [reader.feed(stream[start:end]) for start, end in pairwise(edges)]
    assert wholes == [False] * (len(wholes) - 1) + [True]
    return reader


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_a_sized_answer_is_the_same_however_it_is_cut(body: bytes, cuts: list[int], interim: bool) -> None:
    reader = _fed((b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" if interim else b"") + _sized(body), cuts)
    assert (reader.status, reader.body, reader.closes) == (200, body, False)
    assert header(reader.head, "x-ID") == "7"


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc: d\r\n"]),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_chunked_answer_is_the_same_however_it_is_cut(parts: list[bytes], trailer: bytes, cuts: list[int]) -> None:
    assert _fed(_chunked(parts, trailer), cuts).body == b"".join(parts)


def test_an_answer_without_a_length_ends_with_its_stream() -> None:
    reader = AnswerReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall of")
    assert not reader.feed(b" it")
    assert reader.end()
    assert (reader.body, reader.closes) == (b"all of it", True)


def test_a_cut_answer_does_not_end_with_its_stream() -> None:
    reader = AnswerReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
    assert not reader.end()


def test_no_content_has_no_body() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    assert (reader.status, reader.body, reader.closes) == (204, b"", True)


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,
    ],
)
def test_what_is_no_answer_is_refused(stream: bytes) -> None:
    with pytest.raises(BadAnswer):
        AnswerReader().feed(stream)


@pytest.mark.parametrize("url", ["ftp://host/", "localhost:8000", "http:///path", "http://host:port/"])
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting):
        Target(url)


def test_a_request_names_its_host_path_and_length() -> None:
    head = request_head(Target("http://[::1]:81/a?b=c"), "POST", {"x-id": "1"}, 3)
    assert head == b"POST /a?b=c HTTP/1.1\r\nhost: [::1]:81\r\ncontent-length: 3\r\nx-id: 1\r\n"


@pytest.mark.parametrize(("name", "value"), [("a\r\nb", "c"), ("a", "b\r\nc: d"), ("", "b"), ("a b", "c")])
def test_a_header_that_would_break_the_head_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting):
        header_lines({name: value})
