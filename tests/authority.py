"""Certificates for tests, made by the openssl program in a folder of the test's own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


def openssl(*arguments: str | Path, given: str = "") -> None:
    subprocess.run(
        ["openssl", *map(str, arguments)], input=given, capture_output=True, text=True, check=True, timeout=60
    )


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    cert: Path
    key: Path

    @property
    def flags(self) -> list[str | Path]:
        return ["--tls-cert", self.cert, "--tls-key", self.key]


class Authority:
    """Signs certificates; its own is `ca`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ca, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(
            "req", "-x509", *NEW_KEY, "-keyout", self._key, "-out", self.ca, "-days", "30", "-subj", f"/CN={name}"
        )  # fmt: skip

    def sign(self, name: str, days: int = 30) -> Pair:
        """Good for localhost, 127.0.0.1 and clients; -1 days for one that has expired."""
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("req", *NEW_KEY, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial",
            "-days", str(days), "-extfile", extensions, "-out", made.cert,
        )  # fmt: skip
        return made


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def ssl_config(pair: Pair, client_ca: Path | None = None) -> str:
    """TensorFlow Serving's `SSLConfig` in protobuf's text form: it holds the PEM itself."""

    def quoted(path: Path) -> str:
        return '"' + path.read_text().replace("\n", "\\n") + '"'

    lines = [f"server_key: {quoted(pair.key)}", f"server_cert: {quoted(pair.cert)}"]
    if client_ca is not None:
        lines += [f"custom_ca: {quoted(client_ca)}", "client_verify: true"]
    return "\n".join(lines)
