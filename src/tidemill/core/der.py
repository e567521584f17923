"""As much of X.509 as it takes to tell from when until when a certificate is valid; pure.

A certificate is `SEQUENCE { tbs SEQUENCE { [0] version, serial, algorithm, issuer, validity, ... } ... }` in DER
(RFC 5280, 4.1). Python's `ssl` tells the dates of a peer's certificate only, not of one's own.
"""

from __future__ import annotations

from datetime import UTC, datetime

SEQUENCE, CONTEXT_0, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
BEFORE_VALIDITY = 3
"""serial, algorithm, issuer."""


def validity(certificate: bytes) -> tuple[float, float]:
    """(not before, not after) as Unix times. Raises `ValueError` for what is no certificate."""
    tbs = _inside(_inside(certificate, SEQUENCE), SEQUENCE)
    if tbs[:1] == bytes([CONTEXT_0]):
        _, _, tbs = _element(tbs)
    for _ in range(BEFORE_VALIDITY):
        _, _, tbs = _element(tbs)
    dates = _inside(tbs, SEQUENCE)
    tag, begin, dates = _element(dates)
    end_tag, end, _ = _element(dates)
    return _time(tag, begin), _time(end_tag, end)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of `data`, and what follows it."""
    if len(data) < 2:
        raise ValueError("it ends too early")
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("it ends too early")
    return tag, data[start : start + length], data[start + length :]


def _inside(data: bytes, wanted: int) -> bytes:
    tag, content, _ = _element(data)
    if tag != wanted:
        raise ValueError(f"tag {tag:#04x} where {wanted:#04x} was expected")
    return content


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == UTC_TIME:  # two digits for the year: 50 to 99 are of the twentieth century (RFC 5280, 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != GENERALIZED_TIME:
        raise ValueError(f"tag {tag:#04x} is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
