from __future__ import annotations

import logging
import os
import re
import shutil
import ssl
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authority import Authority, Pair, openssl, ssl_config
from tidemill.core import certificates, der
from tidemill.core.certificates import Paths, Renewal, paths_of, read
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("server")


@pytest.fixture(scope="module")
def other(authority: Authority) -> Pair:
    return authority.sign("other", days=90)


def paths(pair: Pair, client_ca: Path | str = "") -> Paths:
    return Paths(str(pair.cert), str(pair.key), str(client_ca))


def dates(cert: Path) -> list[float]:
    said = subprocess.check_output(["openssl", "x509", "-noout", "-dates", "-in", cert], text=True)
    return [
        datetime.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp()
        for line in said.splitlines()
    ]


def test_the_dates_are_those_that_openssl_tells(pair: Pair, other: Pair) -> None:
    for each in (pair, other):
        found = read(paths(each))
        assert [found.not_before, found.not_after] == dates(each.cert)


def test_a_chain_is_valid_as_long_as_the_first_of_it_to_expire(pair: Pair, other: Pair, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"some words before\n" + other.cert.read_bytes() + b"between\n" + pair.cert.read_bytes())
    assert read(Paths(str(chain), str(other.key))).not_after == dates(pair.cert)[1]


def test_dates_before_1950_and_after_2049(tmp_path: Path) -> None:
    cert, key = tmp_path / "c", tmp_path / "k"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
            "-out", cert, "-days", "40000", "-subj", "/CN=long")  # fmt: skip
    assert read(Paths(str(cert), str(key))).not_after == dates(cert)[1]


@given(st.binary(max_size=200))
def test_what_is_no_certificate_has_no_dates(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        der.validity(data)


@given(st.data())
def test_a_spoilt_certificate_has_dates_or_none_but_harms_nothing(pair: Pair, data: st.DataObject) -> None:
    whole = bytearray(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        begin, end = der.validity(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ValueError:
        return
    assert isinstance(begin, float)
    assert isinstance(end, float)


def test_without_files_there_is_no_tls() -> None:
    assert paths_of(Settings()) is None


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tls_cert": "c"}, "--tls-key is missing"),
        ({"tls_key": "k"}, "--tls-cert is missing"),
        ({"tls_client_ca": "a"}, "--tls-cert is missing"),
        ({"ssl_config_file": "s", "tls_key": "k"}, "leave --tls-cert"),
    ],
    ids=str,
)
def test_half_of_what_tls_takes_is_refused(given: dict[str, str], match: str) -> None:
    with pytest.raises(InvalidSetting, match=match):
        paths_of(Settings(**given))


def test_a_key_of_another_certificate_is_refused(pair: Pair, other: Pair) -> None:
    with pytest.raises(InvalidSetting, match=r"key of --tls-key .*other.key does not belong to .* --tls-cert .*server"):
        read(Paths(str(pair.cert), str(other.key)))


def test_an_expired_certificate_is_refused_with_its_day(authority: Authority) -> None:
    old = authority.sign("old", days=-1)
    with pytest.raises(InvalidSetting, match=rf"old.pem expired on {certificates.day(dates(old.cert)[1])}"):
        read(paths(old))


def test_a_certificate_of_tomorrow_is_refused(pair: Pair) -> None:
    with pytest.raises(InvalidSetting, match="is the clock right"):
        read(paths(pair), now=dates(pair.cert)[0] - 1)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(pair: Pair, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", pair.key, "-aes256", "-passout", "pass:plum", "-out", locked)
    with pytest.raises(InvalidSetting, match=r"locked.key is encrypted; .*openssl pkey"):
        read(Paths(str(pair.cert), str(locked)))


@pytest.mark.parametrize("content", [b"", b"no pem", b"\xff" * 100, b"-----BEGIN CERTIFICATE-----\nAAAA\n"], ids=str)
@pytest.mark.parametrize("which", ["cert", "key", "ca"])
def test_a_file_of_something_else_is_refused_and_named(pair: Pair, which: str, content: bytes, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(content)
    names = {"cert": str(pair.cert), "key": str(pair.key), "ca": str(pair.cert), which: str(wrong)}
    with pytest.raises(InvalidSetting, match=r"wrong\.pem"):
        read(Paths(names["cert"], names["key"], names["ca"]))


@pytest.mark.parametrize("which", ["cert", "key", "ca"])
def test_a_file_that_is_not_there_is_named_with_its_flag(pair: Pair, which: str, tmp_path: Path) -> None:
    names = {"cert": str(pair.cert), "key": str(pair.key), "ca": "", which: str(tmp_path / "nowhere")}
    with pytest.raises(InvalidSetting, match=rf"--tls-(client-)?{which} .*nowhere cannot be read: No such file"):
        read(Paths(names["cert"], names["key"], names["ca"]))


def test_a_folder_and_an_endless_file_are_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read: Is a directory"):
        read(Paths(str(tmp_path), str(pair.key)))
    with pytest.raises(InvalidSetting, match="that is no PEM file"):
        read(Paths("/dev/zero", str(pair.key)))


# -- TensorFlow Serving's form -----------------------------------------------------------------------------------------


def test_tensorflow_servings_config_says_the_same(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    config = tmp_path / "ssl.txt"
    config.write_text(ssl_config(pair))
    found = read(Paths(config=str(config)))
    assert (found.chain, found.key, found.client_ca) == (pair.cert.read_bytes(), pair.key.read_bytes(), b"")
    config.write_text(ssl_config(pair, authority.ca))
    assert read(Paths(config=str(config))).client_ca == authority.ca.read_bytes()


def test_a_ca_that_is_not_to_verify_is_not_asked_for(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    config = tmp_path / "ssl.txt"
    config.write_text(ssl_config(pair, authority.ca).replace("client_verify: true", ""))
    assert read(Paths(config=str(config))).client_ca == b""


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("server_key: 'secret-plum", "no SSLConfig"),
        ("servre_key: 'secret-plum'", "no SSLConfig"),
        ("client_verify: true", "client_verify without custom_ca"),
        ("server_key: 'secret-plum'", "holds no certificate"),
        ("", "holds no certificate"),
    ],
    ids=str,
)
def test_a_config_that_is_wrong_is_told_without_its_content(content: str, match: str, tmp_path: Path) -> None:
    config = tmp_path / "ssl.txt"
    config.write_text(content)
    with pytest.raises(InvalidSetting, match=match) as caught:
        read(Paths(config=str(config)))
    assert "plum" not in str(caught.value)
    assert "ssl.txt" in str(caught.value)


# -- renewal -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def placed(pair: Pair, tmp_path: Path) -> Pair:
    """A copy whose files a test may change."""
    return Pair(Path(shutil.copy(pair.cert, tmp_path / "cert.pem")), Path(shutil.copy(pair.key, tmp_path / "key.pem")))


def put(source: Path, target: Path) -> None:
    """Replaced at once, as those who renew certificates do."""
    fresh = target.with_suffix(".new")
    shutil.copy(source, fresh)
    os.replace(fresh, target)


def test_files_that_stay_as_they_are_are_not_read_again(placed: Pair) -> None:
    renewal = Renewal(paths(placed))
    before = renewal.current
    assert not renewal.look()
    assert renewal.current is before


def test_a_renewed_pair_serves_once_it_is_whole(
    placed: Pair, other: Pair, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate is replaced first and its key a moment later: between the two the old pair serves on."""
    renewal = Renewal(paths(placed))
    put(other.cert, placed.cert)
    with caplog.at_level(logging.ERROR):
        assert not renewal.look()
        assert not renewal.look()
    assert [record.message for record in caplog.records if "serve on" in record.message] == [caplog.messages[-1]]
    assert "does not belong" in caplog.messages[-1]
    assert renewal.failed
    assert renewal.current.chain == pair.cert.read_bytes()
    put(other.key, placed.key)
    assert renewal.look()
    assert not renewal.failed
    assert (renewal.current.chain, renewal.current.key) == (other.cert.read_bytes(), other.key.read_bytes())


@pytest.mark.parametrize("way", ["gone", "expired", "garbage"])
def test_what_cannot_serve_is_logged_and_the_old_serves_on(
    placed: Pair, authority: Authority, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = Renewal(paths(placed))
    before = renewal.current
    if way == "gone":
        placed.cert.unlink()
    elif way == "garbage":
        placed.cert.write_text("garbage")
    else:
        old = authority.sign("late", days=-1)
        put(old.key, placed.key)
        put(old.cert, placed.cert)
    with caplog.at_level(logging.ERROR):
        assert not renewal.look()
    assert renewal.current is before
    assert re.search("No such file|expired on|holds no certificate", caplog.messages[-1])
    put(Path(placed.key), placed.key)


def test_an_end_that_is_near_is_warned_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Renewal(paths(authority.sign("far", days=30)))
        Renewal(paths(authority.sign("near", days=7)))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_the_context_asks_for_tls_1_2_at_least(pair: Pair, authority: Authority) -> None:
    plain = read(paths(pair)).context(("http/1.1",))
    assert plain.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert plain.verify_mode is ssl.CERT_NONE
    assert read(paths(pair, authority.ca)).context().verify_mode is ssl.CERT_REQUIRED
    assert time.time() < read(paths(pair)).not_after
