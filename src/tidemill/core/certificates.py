"""The certificates of a server: read from files, judged before they serve, and read again when the files change.

Used in every process that listens: the owner and the console's.
"""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tidemill.core import der
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings

log = logging.getLogger(__name__)

PEM_BYTES_MAX = 2**20
EXPIRES_SOON_S = 14 * 86_400
LOOK_S = 1.0
"""How often the files are looked at, and so how late a renewed certificate serves."""
Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where certificates come from: files of PEM, or one of TensorFlow Serving's `SSLConfig`."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    config: str = ""

    def words(self) -> list[tuple[str, str]]:
        """Each with the word that names it on a command line."""
        words = ("tls-cert", "tls-key", "tls-client-ca", "ssl-config-file")
        return list(zip(words, (self.cert, self.key, self.client_ca, self.config), strict=True))

    def files(self) -> list[str]:
        return [name for _, name in self.words() if name]


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a listening port shows and asks for, all of it valid together when it was read.

    `client_ca` is empty where no client certificate is asked for. Times are Unix times; `not_after` is that of the
    first certificate of the chain to expire.
    """

    chain: bytes
    key: bytes
    client_ca: bytes
    not_before: float
    not_after: float

    def context(self, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """For the server's side, TLS 1.2 and newer. `protocols`: ALPN, the one preferred first.

        Raises `ssl.SSLError`, which `read` has ruled out.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with _as_file(self.chain) as chain, _as_file(self.key) as key:
            context.load_cert_chain(chain, key, password=_no_passphrase)
        if self.client_ca:
            context.load_verify_locations(cadata=self.client_ca.decode("ascii", "replace"))
            context.verify_mode = ssl.CERT_REQUIRED
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def paths_of(settings: Settings) -> Paths | None:
    """None where TLS is not asked for. Raises `InvalidSetting` for half of what it takes."""
    config = settings.ssl_config_file
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if config and (cert or key or client_ca):
        raise InvalidSetting("--ssl-config-file holds all that TLS wants; leave --tls-cert and the like out")
    if config:
        return Paths(config=config)
    if not (cert or key or client_ca):
        return None
    for value, flag in ((cert, "--tls-cert"), (key, "--tls-key")):
        if not value:
            raise InvalidSetting(f"{flag} is missing: TLS wants a certificate and its key")
    return Paths(cert, key, client_ca)


def read(paths: Paths, now: float | None = None) -> Certificates:
    """Raises `InvalidSetting` for what cannot be read, does not belong together, or is not valid `now`."""
    if paths.config:
        chain, key, client_ca = _ssl_config(paths.config)
        named = dict.fromkeys(("cert", "key", "ca"), f"--ssl-config-file {paths.config}")
    else:
        named = {"cert": f"--tls-cert {paths.cert}", "key": f"--tls-key {paths.key}"}
        named["ca"] = f"--tls-client-ca {paths.client_ca}"
        chain, key = _content(named["cert"], paths.cert), _content(named["key"], paths.key)
        client_ca = _content(named["ca"], paths.client_ca) if paths.client_ca else b""
        if paths.client_ca and ssl.PEM_HEADER.encode() not in client_ca:  # empty would ask no client for anything
            raise InvalidSetting(f"{named['ca']} holds no certificate; expected PEM, {ssl.PEM_HEADER}")
    not_before, not_after = _validity(named["cert"], chain)
    found = Certificates(chain, key, client_ca, not_before, not_after)
    try:
        found.context()
    except (ssl.SSLError, ValueError) as error:
        raise InvalidSetting(_why(error, found, named)) from error
    now = time.time() if now is None else now
    if not_after <= now:
        raise InvalidSetting(f"{named['cert']} expired on {day(not_after)}; renew it")
    if not_before > now:
        raise InvalidSetting(f"{named['cert']} is valid from {day(not_before)} on; is the clock right?")
    return found


def day(at: float) -> str:
    """A Unix time for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


class Renewal:
    """Certificates that follow their files. `current` may be read from any thread; `look` belongs to one.

    Life: built with what serves from the start; `look` now and then; what cannot be used is logged once, and the old
    serves on.
    """

    def __init__(self, paths: Paths) -> None:
        """Raises what `read` raises."""
        self._paths = paths
        self._stamp = self._stamped()
        self.current = read(paths)
        self.failed = False
        self._tell(self.current)

    def look(self) -> bool:
        """Whether there are new certificates now. Never raises for what the files hold."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        old = self.current
        try:
            fresh = read(self._paths)
            if bool(fresh.client_ca) != bool(old.client_ca):
                raise InvalidSetting("whether clients show a certificate is settled at the start; start again")
        except InvalidSetting as error:
            self.failed = True
            log.error("certificates not renewed, those valid until %s serve on: %s", day(old.not_after), error.message)
            return False
        self.failed = False
        if fresh == old:
            return False
        self.current = fresh
        self._tell(fresh)
        return True

    def _stamped(self) -> Stamp:
        return tuple(_stamp(name) for name in self._paths.files())

    @staticmethod
    def _tell(certificates: Certificates) -> None:
        until = certificates.not_after
        level = logging.WARNING if until - time.time() < EXPIRES_SOON_S else logging.INFO
        log.log(level, "TLS with a certificate that expires on %s", day(until))


def _stamp(name: str) -> tuple[int, int, int] | None:
    try:
        found = Path(name).expanduser().stat()
    except (OSError, RuntimeError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(named: str, name: str) -> bytes:
    try:
        with Path(name).expanduser().open("rb") as file:
            found = file.read(PEM_BYTES_MAX + 1)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidSetting(f"{named} cannot be read: {reason}") from error
    if len(found) > PEM_BYTES_MAX:
        raise InvalidSetting(f"{named} has more than {PEM_BYTES_MAX} bytes; that is no PEM file")
    return found


def _ssl_config(name: str) -> tuple[bytes, bytes, bytes]:
    """Chain, key and client CA of TensorFlow Serving's text form; the last is empty unless clients are verified."""
    from google.protobuf import text_format

    from tidemill.core.schemas import message

    named = f"--ssl-config-file {name}"
    config = message("tensorflow.serving.SSLConfig")()
    try:
        text_format.Parse(_content(named, name).decode("utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        place = str(error).partition(" : ")[0][:40]  # what follows would quote the key
        raise InvalidSetting(f"{named} is no SSLConfig in protobuf's text form: line {place}") from None
    if config.client_verify and not config.custom_ca:
        raise InvalidSetting(f"{named} has client_verify without custom_ca: name the CA of the clients")
    client_ca = config.custom_ca if config.client_verify else ""
    return config.server_cert.encode(), config.server_key.encode(), client_ca.encode()


def _validity(named: str, chain: bytes) -> tuple[float, float]:
    """From when and until when every certificate of `chain` is valid."""
    spans = []
    for part in chain.decode("ascii", "replace").split(ssl.PEM_HEADER)[1:]:
        pem = ssl.PEM_HEADER + part.partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER
        try:
            spans.append(der.validity(ssl.PEM_cert_to_DER_cert(pem)))
        except ValueError as error:
            raise InvalidSetting(f"{named} holds a certificate that cannot be read: {error}") from error
    if not spans:
        raise InvalidSetting(f"{named} holds no certificate; expected PEM, {ssl.PEM_HEADER}")
    return max(begin for begin, _ in spans), min(end for _, end in spans)


def _why(error: Exception, found: Certificates, named: dict[str, str]) -> str:
    """OpenSSL's reason in words of ours."""
    reason = getattr(error, "reason", None) or str(error)
    if reason == NO_PASSPHRASE:
        return f"the key of {named['key']} is encrypted; write it without: openssl pkey -in FILE -out FILE"
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key of {named['key']} does not belong to the certificate of {named['cert']}"
    if b"PRIVATE KEY-----" not in found.key:
        return f"{named['key']} holds no private key; expected PEM, -----BEGIN PRIVATE KEY-----"
    return f"TLS cannot be made of {', '.join(dict.fromkeys(named.values()))}: {reason}"


NO_PASSPHRASE = "the key wants a passphrase"  # noqa: S105 - it is none


def _no_passphrase() -> str:
    """Asked by OpenSSL, which would else ask the terminal."""
    raise ValueError(NO_PASSPHRASE)


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """`content` under a name, because `ssl` reads keys from files alone; in memory where the system can."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("pem"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
