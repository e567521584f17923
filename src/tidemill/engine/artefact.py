"""What `tidemill compile` built, found again by the digest of what it was built from; read where models are loaded and
written by the craft `compile`.

`PLACE/SOURCE/KEY/` is one artefact: SOURCE the digest of the files it came from, KEY that of how it was built, with
`artefact.json` beside what the engine opens. A folder appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from tidemill.core.errors import RefusedModel
from tidemill.core.places import cache_dir

MANIFEST: Final = "artefact.json"
FRESH: Final = ".new-"
DIGEST_CHARACTERS: Final = 32
GENAI: Final = "genai"
"""The format of all that is built so far."""


class Artefact(msgspec.Struct, frozen=True):
    """`options` is how it was built, in words and values; `made_with` the versions of what built it; `files` name ->
    bytes; `measured` what was found of it."""

    source: str
    key: str
    format: str
    options: dict[str, str]
    made_with: dict[str, str]
    made_at: float
    files: dict[str, int]
    measured: dict[str, float] = {}

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())


class Found(msgspec.Struct, frozen=True):
    path: Path
    artefact: Artefact


def place() -> Path:
    return cache_dir() / "compiled"


def digest(files: Iterable[Path]) -> str:
    """Of names and contents, in their order. Raises `RefusedModel` for what cannot be read. Blocks."""
    whole = hashlib.sha256()
    for each in files:
        try:
            with each.open("rb") as file:
                told = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RefusedModel(f"{each} cannot be read: {error}") from error
        whole.update(f"{each.name} {told}\n".encode())
    return whole.hexdigest()[:DIGEST_CHARACTERS]


def key(options: dict[str, str], made_with: dict[str, str]) -> str:
    told = msgspec.json.encode([options, made_with], order="sorted")
    return hashlib.sha256(told).hexdigest()[:DIGEST_CHARACTERS]


def read(folder: Path) -> Artefact | None:
    """The artefact in `folder`; None where there is none, or a file of it is not there in its full size."""
    try:
        found = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Artefact)
        whole = all((folder / name).stat().st_size == size for name, size in found.files.items())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if whole else None


def of_source(source: str) -> list[Found]:
    """What was built from the files of this digest, newest first."""
    return sorted(_in(place() / source), key=lambda each: each.artefact.made_at, reverse=True)


def some() -> bool:
    """Whether anything was built at all: if not, no file need be read for its digest."""
    return bool(_folders(place()))


def everything() -> list[Found]:
    """All artefacts, those that were used last first."""
    found = [each for source in _folders(place()) for each in _in(source)]
    return sorted(found, key=lambda each: used_at(each.path), reverse=True)


def used(folder: Path) -> None:
    """Note that it is used now; where the folder belongs to somebody else, nothing is noted."""
    try:
        (folder / MANIFEST).touch()
    except OSError:
        return


def used_at(folder: Path) -> float:
    try:
        return (folder / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _in(source: Path) -> Iterator[Found]:
    for folder in _folders(source):
        found = read(folder)
        if found is not None:
            yield Found(folder, found)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(FRESH))
    except OSError:
        return []
