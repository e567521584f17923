from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any

import certifi
import pytest

from tidemill.core.errors import FetchFailed
from tidemill.kit import catalogue, index, network
from tidemill.kit.network import Network, parse


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Python whose pip answers as told: (exit code, stdout, stderr)."""

    def pip(code: int, stdout: str = "", stderr: str = "") -> None:
        (tmp_path / "stdout").write_text(stdout)
        (tmp_path / "stderr").write_text(stderr)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\ncat "{tmp_path}/stdout"; cat "{tmp_path}/stderr" >&2; exit {code}\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return pip


def test_variable_beats_install_beats_global() -> None:
    told = "global.cert='/global.pem'\ninstall.cert='/install.pem'\n:env:.cert='/env.pem'\n"
    assert parse(told, {}).certificate == "/env.pem"
    assert parse(told.replace(":env:", "user"), {}).certificate == "/install.pem"


def test_variables_of_other_tools_name_the_certificate_where_pip_names_none() -> None:
    assert parse("", {"SSL_CERT_FILE": "/a.pem", "CURL_CA_BUNDLE": "/b.pem"}).certificate == "/a.pem"
    assert parse("global.cert='/c.pem'", {"SSL_CERT_FILE": "/a.pem"}).certificate == "/c.pem"
    assert parse("", {}) == Network()


def test_proxy_password_and_trusted_host_are_pips() -> None:
    found = parse(
        "global.proxy='proxy.test:3128'\n"
        "global.index-url='https://user:p%40ss@mirror.test/simple'\n"
        "global.extra-index-url='https://open.test/simple\\nhttps://token@other.test/'\n"
        "global.trusted-host='mirror.test:8443 old.test'\n",
        {},
    )
    assert found.proxy == "http://proxy.test:3128"
    assert found.passwords == {"mirror.test": ("user", "p@ss"), "other.test": ("token", "")}
    assert found.trusted == {"mirror.test", "old.test"}


def test_password_goes_to_its_own_host_only(server: Any) -> None:
    for host in ("127.0.0.1", "elsewhere.test"):
        with Network(passwords={host: ("user", "secret")}).client(server.url) as client:
            client.get(server.url)
    assert server.authorizations == ["Basic dXNlcjpzZWNyZXQ=", None]


def test_certificates_are_checked_unless_pip_trusts_the_host() -> None:
    assert Network()._context("a.test").verify_mode == ssl.CERT_REQUIRED
    assert Network(certificate=certifi.where())._context("a.test").check_hostname
    assert Network(trusted=frozenset({"a.test"}))._context("a.test").verify_mode == ssl.CERT_NONE
    assert Network(trusted=frozenset({"a.test"}))._context("b.test").verify_mode == ssl.CERT_REQUIRED


def test_unreadable_certificate_and_unknown_proxy_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"gone\.pem"):
        Network(certificate=str(tmp_path / "gone.pem")).client("https://a.test/")
    with pytest.raises(FetchFailed, match="proxy"):
        Network(proxy="gopher://a.test").client("https://a.test/")


def test_python_without_pip_says_how_to_get_it(pip: Any) -> None:
    pip(1, stderr="python: No module named pip\n")
    with pytest.raises(FetchFailed, match="ensurepip"):
        index.locate(catalogue.MAGIKA)


def test_python_that_does_not_start_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(FetchFailed, match="gone"):
        index.locate(catalogue.MAGIKA)


def test_pip_that_finds_nothing_is_quoted(pip: Any) -> None:
    pip(1, stderr="WARNING: Retrying\nERROR: No matching distribution found for magika==1.0.3\n")
    with pytest.raises(FetchFailed, match=r"No matching distribution found for magika==1\.0\.3; check the network"):
        index.locate(catalogue.MAGIKA)


@pytest.mark.parametrize("report", ["", "{}", '{"install": []}', "[]"])
def test_report_that_is_not_understood_is_a_clear_error(pip: Any, report: str) -> None:
    pip(0, stdout=report)
    with pytest.raises(FetchFailed, match=r"pip 22\.2"):
        index.locate(catalogue.MAGIKA)


def test_url_is_the_one_that_pip_reports(pip: Any) -> None:
    pip(0, stdout='{"install": [{"download_info": {"url": "https://mirror.test/magika.whl"}}]}')
    assert index.locate(catalogue.MAGIKA) == "https://mirror.test/magika.whl"


def test_pip_that_never_answers_is_given_up(pip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pip(0)
    Path(sys.executable).write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(network, "PIP_S_MAX", 0.05)
    with pytest.raises(FetchFailed, match="no answer"):
        index.locate(catalogue.MAGIKA)


def test_pip_of_this_python_lists_its_configuration() -> None:
    assert isinstance(network.pip_network(), Network)
