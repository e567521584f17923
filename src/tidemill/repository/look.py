"""One look at a model on disk: which versions are there, and whether they are whole; used by the owner, on a thread.

A version is told from what it was by its stamp: where it lies, its files' names, sizes and times, and its
configuration. Nothing is opened but `tidemill.toml` and `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidemill.core.errors import RefusedModel, UnknownModel
from tidemill.core.package import ModelConfig, ModelEntry, VersionPolicy, Versions, overlaid
from tidemill.repository import layout, model_config

FILES_MAX = 10_000
"""Files of one version that are looked at."""


class Stamp(msgspec.Struct, frozen=True):
    """Equal while a version is what it was. `files` holds name, bytes, and nanoseconds of the last change."""

    path: Path
    files: tuple[tuple[str, int, int], ...]
    config: ModelConfig


class Seen(msgspec.Struct, frozen=True):
    """A version on disk. `whole` is what its `manifest.json` says of its files, None where none says anything."""

    stamp: Stamp
    whole: bool | None


class Look(msgspec.Struct, frozen=True):
    """A model on disk. `policy` and `labels` are the model's own under its entry's, None and none where neither says
    anything. `trouble` says why no version is there, `fault` why what the model says of itself cannot be used."""

    versions: dict[int, Seen]
    policy: VersionPolicy | None = None
    labels: dict[str, int] = {}
    trouble: str = ""
    fault: str = ""


def look(entry: ModelEntry) -> Look:
    """What is there now. Blocks; raises nothing."""
    try:
        found = layout.versions_at(entry.name, entry.base_path)
        seen = {version: _seen(path, entry.config) for version, path in found.items()}
    except UnknownModel as error:
        return Look({}, trouble=error.message)
    except OSError as error:
        return Look({}, trouble=f"{entry.base_path} cannot be read: {error}")
    try:
        said = overlaid(_own_config(found), entry.config).versions
        policy = entry.policy or (None if said.policy is None else parsed_policy(said.policy))
    except (RefusedModel, OSError) as error:
        return Look(seen, entry.policy, entry.labels, fault=str(error))
    return Look(seen, policy, {**said.labels, **entry.labels})


def parsed_policy(text: str) -> VersionPolicy:
    """Raises `RefusedModel`."""
    try:
        return VersionPolicy.parse(text)
    except ValueError as error:
        raise RefusedModel(f"[versions] policy = {error}") from error


def _seen(path: Path, above: ModelConfig | None) -> Seen:
    try:
        config = overlaid(layout.said_of(path).config, above)
    except RefusedModel:
        config = ModelConfig()  # loading it raises the same
    files = tuple(_files(path))
    return Seen(Stamp(path, files, msgspec.structs.replace(config, versions=Versions())), _whole(path))


def _own_config(found: dict[int, Path]) -> ModelConfig:
    """Of the model's folder, which lies above its versions or is its only one."""
    for path in found.values():
        if path.is_dir() and layout.VERSION.fullmatch(path.name):
            return model_config.read(path.parent, None).config
        return model_config.read(path, None).config
    return ModelConfig()


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Of a folder all that is in it, of a bare file itself; one that goes meanwhile was not there."""
    for number, file in enumerate(sorted(path.rglob("*")) if path.is_dir() else [path]):
        try:
            status = file.stat()
        except OSError:
            continue
        if number < FILES_MAX:
            yield str(file.relative_to(path)), status.st_size, status.st_mtime_ns


def _whole(path: Path) -> bool | None:
    """Whether every file that the manifest in `path` records is there in full."""
    try:
        listed = msgspec.json.decode((path / layout.MANIFEST_NAME).read_bytes(), type=_Listed).files
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not listed:
        return None
    try:
        return all((path / name).stat().st_size == record.size_bytes for name, record in listed.items())
    except OSError:
        return False


class _Sized(msgspec.Struct, frozen=True):
    size_bytes: int


class _Listed(msgspec.Struct, frozen=True):
    files: dict[str, _Sized] = {}
