"""Who a `Host` header names; what cannot be read names nobody, so that it is never taken for an address."""

from __future__ import annotations

import pytest

from tidemill.doors.framework import hostname


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8080", "localhost"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("evil.example:", "evil.example"),
        ("evil.example:99999", "evil.example"),
        ('a"b.evil.example', 'a"b.evil.example'),
        ("a{b}.evil.example:80", "a{b}.evil.example"),
        ("localhost@evil.example", ""),
        ("a b", ""),
        ("[", ""),
        ("[evil]", ""),
        ("a:b:c", ""),
        ("", ""),
    ],
)
def test_name_or_address_of_a_host_header(host: str, named: str) -> None:
    assert hostname(host) == named
