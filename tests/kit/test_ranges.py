from __future__ import annotations

import io
import zipfile
from typing import Any

import httpx
import pytest

from tidemill.core.errors import FetchFailed
from tidemill.kit.ranges import NoRange, RangeFile, open_ranges


def patient(client: httpx.Client, url: str) -> RangeFile:
    return RangeFile(client, url, pause=lambda seconds: None)


def test_members_of_an_archive_are_read_without_the_rest(server: Any) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("small", b"wanted")
        archive.writestr("huge", bytes(2_000_000))
    server.content = packed.getvalue()
    with httpx.Client() as client, open_ranges(client, server.url) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("small") == b"wanted"
    spans = [span.removeprefix("bytes=").split("-") for span in server.asked]
    assert sum(int(end) - int(start) + 1 for start, end in spans) < 200_000


def test_reads_like_a_file_on_disk(server: Any) -> None:
    plain = io.BytesIO(server.content)
    with httpx.Client() as client, open_ranges(client, server.url) as file:
        for offset, whence, count in [(10, 0, 5), (-7, 2, 100), (3, 1, 4), (0, 0, 70_000), (0, 2, 1), (9**9, 0, 1)]:
            assert file.seek(offset, whence) == plain.seek(offset, whence)
            assert file.read(count) == plain.read(count)
            assert file.tell() == plain.tell()
        with pytest.raises(OSError, match="seek"):
            file.seek(-1)


def test_server_without_range_is_told_apart(server: Any) -> None:
    server.ranges = False
    with httpx.Client() as client, pytest.raises(NoRange):
        open_ranges(client, server.url)


def test_cut_and_busy_answers_are_asked_for_again(server: Any) -> None:
    server.statuses = [503]
    with httpx.Client() as client:
        file = patient(client, server.url)
        server.cuts = [10]
        assert file.read(1000) == server.content[:1000]


def test_retries_are_bounded(server: Any) -> None:
    server.statuses = [503] * 100
    with httpx.Client() as client, pytest.raises(FetchFailed, match="failed 4 times"):
        patient(client, server.url)
    assert len(server.asked) == 4
