"""How the user's pip reaches the index (certificate, proxy, password), for downloads of our own; any process."""

from __future__ import annotations

import ast
import netrc
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from tidemill.core.errors import FetchFailed

PIP_S_MAX = 300.0
"""Longest that one question to pip may take."""

_CONNECT_S_MAX = 15.0
_SILENCE_S_MAX = 60.0
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Network:
    """What pip was told. `certificate` and `proxy` are None where it was told nothing.

    `passwords` maps a host of an index to user and password; `trusted` holds hosts whose certificate is not looked at.
    """

    certificate: str | None = None
    proxy: str | None = None
    passwords: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    trusted: frozenset[str] = frozenset()

    def client(self, url: str) -> httpx.Client:
        """A client for `url` and the places it leads to. Raises `FetchFailed` for a certificate or proxy of no use."""
        host = urlsplit(url).hostname or ""
        try:
            return httpx.Client(
                verify=self._context(host),
                proxy=self.proxy,
                auth=self._auth(host),
                follow_redirects=True,
                timeout=httpx.Timeout(_SILENCE_S_MAX, connect=_CONNECT_S_MAX),
                # A wheel is compressed already, and its ranges must be ranges of the file itself.
                headers={"Accept-Encoding": "identity"},
            )
        except (ValueError, ImportError) as error:
            raise FetchFailed(f"the proxy that pip is told to use cannot be used: {error}") from error

    def _context(self, host: str) -> ssl.SSLContext:
        try:
            if self.certificate is None:
                # The system's authorities as pip takes them, and httpx's own where the system keeps none.
                context = ssl.create_default_context()
                context.load_verify_locations(cafile=_bundled_authorities())
            elif Path(self.certificate).is_dir():
                context = ssl.create_default_context(capath=self.certificate)
            else:
                context = ssl.create_default_context(cafile=self.certificate)
        except OSError as error:
            raise FetchFailed(
                f"the certificate {self.certificate} that pip is told to use cannot be read ({error});"
                " see `pip config list`"
            ) from error
        if host in self.trusted:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _auth(self, host: str) -> httpx.Auth | None:
        if host in self.passwords:
            return httpx.BasicAuth(*self.passwords[host])
        try:
            return httpx.NetRCAuth()
        except (OSError, netrc.NetrcParseError):
            return None


def ask_pip(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the pip of this Python. Raises `FetchFailed` when there is none or it does not come back."""
    command = [sys.executable, "-m", "pip", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PIP_S_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(f"pip gave no answer in {PIP_S_MAX:g} s; is there a network?") from error
    except OSError as error:
        raise FetchFailed(f"cannot start {sys.executable} to ask pip: {error}") from error
    if done.returncode and "No module named pip" in done.stderr:
        raise FetchFailed(
            f"the kit is fetched with pip, which {sys.executable} does not have;"
            f" `{sys.executable} -m ensurepip` brings it"
        )
    return done


def pip_network() -> Network:
    """Ask pip for its configuration. Raises `FetchFailed`."""
    done = ask_pip(["config", "list"])
    if done.returncode:
        raise FetchFailed(f"`pip config list` failed: {done.stderr.strip()}")
    return parse(done.stdout, os.environ)


def parse(config_list: str, environment: Mapping[str, str]) -> Network:
    """Read what `pip config list` printed; a variable beats the section of `install`, which beats `global`."""
    told: dict[str, str] = {}
    for line in config_list.splitlines():
        key, _, value = line.partition("=")
        try:
            told[key] = str(ast.literal_eval(value))
        except (SyntaxError, ValueError):
            continue

    def first(word: str) -> str:
        return next((told[key] for at in (":env:", "install", "global") if (key := f"{at}.{word}") in told), "")

    passwords = {}
    for url in f"{first('index-url')} {first('extra-index-url')} {first('find-links')}".split():
        parts = urlsplit(url)
        if parts.hostname and parts.username:
            passwords[parts.hostname] = (unquote(parts.username), unquote(parts.password or ""))
    variables = (environment.get(name, "") for name in _CERTIFICATE_VARIABLES)
    certificate = first("cert") or next(filter(None, variables), "")
    return Network(
        certificate=str(Path(certificate).expanduser()) if certificate else None,
        proxy=_proxy(first("proxy")),
        passwords=passwords,
        trusted=frozenset(entry.partition(":")[0] for entry in first("trusted-host").split()),
    )


def _proxy(told: str) -> str | None:
    """pip also takes a bare host:port."""
    if not told:
        return None
    return told if "://" in told else f"http://{told}"


def _bundled_authorities() -> str:
    import certifi

    return certifi.where()
