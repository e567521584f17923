from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import RefusedModel
from tidemill.repository.tf_record import framed, records

WHOLE = framed(b"first") + framed(b"")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read(folder: Path, content: bytes, bytes_max: int = 1000) -> list[bytes]:
    path = folder / "file"
    path.write_bytes(content)
    return list(records(path, bytes_max))


@SHARED
@given(given_records=st.lists(st.binary(max_size=300)))
def test_records_come_back_as_they_were_written(tmp_path: Path, given_records: list[bytes]) -> None:
    assert read(tmp_path, b"".join(map(framed, given_records))) == given_records


def test_record_is_what_tensorflow_writes(tmp_path: Path) -> None:
    written = bytes.fromhex("040000000000000042455204746964653dfaf1cb")  # by its TFRecordWriter
    assert framed(b"tide") == written
    assert read(tmp_path, written) == [b"tide"]


@pytest.mark.parametrize("size", [size for size in range(1, len(WHOLE)) if size != len(framed(b"first"))])
def test_file_that_is_cut_short_is_told(tmp_path: Path, size: int) -> None:
    with pytest.raises(RefusedModel, match=r"record [12].* is cut short"):
        read(tmp_path, WHOLE[:size])


@pytest.mark.parametrize("place", range(len(WHOLE)))
def test_file_of_which_a_bit_changed_is_told(tmp_path: Path, place: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] ^= 0x10
    with pytest.raises(RefusedModel, match=r"record [12].* (has|have) another checksum"):
        read(tmp_path, bytes(changed))


def test_what_is_no_file_of_records_is_told(tmp_path: Path) -> None:
    for content in (gzip.compress(WHOLE), b"model_warmup { name: 'x' }", bytes(12)):
        with pytest.raises(RefusedModel, match="uncompressed TFRecord"):
            read(tmp_path, content)
    with pytest.raises(RefusedModel, match="cannot be read"):
        list(records(tmp_path / "gone", 10))


def test_record_beyond_what_a_request_may_have_is_refused_before_it_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, framed(b"1234"), 4) == [b"1234"]
    with pytest.raises(RefusedModel, match=r"record 1 has 5 bytes, the most allowed is 4 \(--body-bytes-max\)"):
        read(tmp_path, framed(b"12345"), 4)
    claims = framed(bytes(2**20))[:12]
    with pytest.raises(RefusedModel, match="has 1048576 bytes"):
        read(tmp_path, claims)
