from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.repository import crc32c as module
from tidemill.repository.crc32c import FEW, NUMBERS, ROW, crc32c


def byte_by_byte(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = NUMBERS[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_sums_are_those_of_the_standard(data: bytes, wanted: int) -> None:
    assert crc32c(data) == wanted


@given(data=st.binary(min_size=4, max_size=9 * ROW), few=st.just(0))
def test_rows_that_go_on_together_sum_up_as_byte_by_byte(data: bytes, few: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", few)
        assert crc32c(data) == byte_by_byte(data)


@pytest.mark.parametrize("size", [FEW - 1, FEW, FEW + 1, 2 * FEW, 2 * FEW + ROW + 1])
def test_many_bytes_sum_up_as_few(size: int) -> None:
    data = bytes(number * number % 251 for number in range(size))
    assert crc32c(data) == byte_by_byte(data)
