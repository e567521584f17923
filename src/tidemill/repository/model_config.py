"""What a model says of itself beside its files: `tidemill.toml`, Triton's `config.pbtxt`, `labels.txt`.

Used by the owner and the command line.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelConfig, Versions, overlaid
from tidemill.repository import triton_config
from tidemill.repository.triton_config import Said

CONFIG_NAME = "tidemill.toml"
LABELS_NAME = "labels.txt"
LABELS_BYTES_MAX = 4_000_000


def read(path: Path, model: Path | None) -> Said:
    """Of the model at `path`: `tidemill.toml` in its folder, else in `model`, the folder above where `path` is one of
    several versions; over `config.pbtxt` in the model's folder. `NAME.toml` is that of a bare file.

    Raises `RefusedModel`.
    """
    if path.is_file():
        return Said(_toml(path.with_suffix(".toml")) or ModelConfig())
    home = model or path
    place = home / triton_config.NAME
    said = triton_config.read(place, home.name) if place.is_file() else Said(ModelConfig())
    own = _toml(path / CONFIG_NAME)
    if model is not None and own is not None and own.versions != Versions():
        raise RefusedModel(f"{path / CONFIG_NAME}: [versions] belongs beside the version folders, into {model}")
    if model is not None and own is None:
        own = _toml(model / CONFIG_NAME)
    return msgspec.structs.replace(said, config=overlaid(said.config, own))


def labels(path: Path, file: str = "") -> tuple[str, ...]:
    """The classes of the version at `path` by name, one a line of `labels.txt` in its folder, or of `file` beside it.

    A file that cannot be a list of names is somebody's own, and counts as none; so does one that lies elsewhere.
    """
    if not path.is_dir() or Path(file).name != file:
        return ()
    place = path.parent / file if file else path / LABELS_NAME
    if not place.is_file() or place.stat().st_size > LABELS_BYTES_MAX:
        return ()
    try:
        return tuple(place.read_text("utf-8").splitlines())
    except UnicodeDecodeError:
        return ()


def _toml(place: Path) -> ModelConfig | None:
    if not place.is_file():
        return None
    try:
        return msgspec.convert(tomllib.loads(place.read_text("utf-8")), ModelConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedModel(f"{place}: {error}") from error
