"""What a compressed version was made from, as its `manifest.json` says; read by the owner and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core.errors import RefusedModel, UnknownModel
from tidemill.repository import layout

REPORT_FOLDER = "report"
REPORT_NAMES = ("report.html", "report.json", "report.png")
REPORT_BYTES_MAX = 64_000_000


class Measured(msgspec.Struct, frozen=True):
    """A mean over held-out rows with its 95 % interval."""

    mean: float
    low: float
    high: float


class Loss(msgspec.Struct, frozen=True):
    """`kept` is after's share of before; `keep` the share that was asked for, or None."""

    metric: str
    before: Measured
    after: Measured
    difference: Measured
    kept: float
    keep: float | None = None


class Origin(msgspec.Struct, frozen=True):
    """A model file. `sha256` covers its external data too; `source` is where it came from in its turn."""

    name: str
    version: int
    sha256: str
    size_bytes: int
    source: str = ""


class Rows(msgspec.Struct, frozen=True):
    """The data. `sha256` is that of what was read."""

    source: str
    sha256: str
    fit: int
    held: int


class SpeedUp(msgspec.Struct, frozen=True):
    """At one shape: the best engine's time after over the best one's before."""

    shape: str
    engine: str
    ratio: float


class Lineage(msgspec.Struct, frozen=True):
    """`of` is what the model was made from, `recipe` what was done to it, with every option's value."""

    of: Origin
    recipe: dict[str, Any]
    seed: int
    data: Rows
    loss: Loss
    created_at: float
    tidemill: str
    outcome: str = ""
    speed: tuple[SpeedUp, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(str(step.get("method", "")) for step in self.recipe.get("steps", ()))


class FileRecord(msgspec.Struct, frozen=True):
    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """`files` are paths from the version's folder."""

    name: str
    version: int
    source: str
    files: dict[str, FileRecord]
    lineage: Lineage
    licence: str = ""
    description: str = ""


def read(folder: Path) -> Manifest | None:
    """The manifest of the version in `folder`; None where there is none that tells a lineage."""
    try:
        return msgspec.json.decode((folder / layout.MANIFEST_NAME).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def all_of(repository: Path) -> Iterator[tuple[Manifest, Path]]:
    """Every compressed version of a repository with its folder, by name and version."""
    for name in layout.names(repository):
        for version, folder in layout.versions(repository / name).items():
            manifest = read(folder)
            if manifest is not None and (manifest.name, manifest.version) == (name, version):
                yield manifest, folder


def report(repository: Path, name: str, version: int, file: str) -> bytes:
    """One of `REPORT_NAMES` of a version. Raises `UnknownModel`, `RefusedModel` for one that is too large to be one."""
    path = repository / name / str(version) / REPORT_FOLDER / file
    if not layout.NAME.fullmatch(name) or file not in REPORT_NAMES or not path.is_file():
        raise UnknownModel(f"{name!r} version {version} has no {file}; `tidemill compress` writes one with each model")
    if path.stat().st_size > REPORT_BYTES_MAX:
        raise RefusedModel(f"{path} has {path.stat().st_size} bytes, a report has {REPORT_BYTES_MAX} at most")
    return path.read_bytes()
