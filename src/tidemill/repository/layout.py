"""Names and versions on disk: `DIR/NAME/VERSION/...` and bare paths; used by the owner and the command line."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import msgspec

from tidemill.core.errors import RefusedModel, UnknownModel
from tidemill.core.package import ModelConfig, ModelEntry, ModelPackage, VersionPolicy, overlaid
from tidemill.core.tensor import Signature
from tidemill.core.text import short
from tidemill.repository import formats, genai, gguf, huggingface, model_config, onnx_files, saved_model, triton_config

log = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
VERSION = re.compile(r"[0-9]{1,18}")
STORE = re.compile(r"(?!file:)([a-z][a-z0-9+.\-]*):/", re.IGNORECASE)
WITHOUT_FILE = ("echo", "ensemble", "remote")
"""Engines of models that are a `tidemill.toml` and no more."""
HOLDS_NONE = "holds no model: no ONNX, OpenVINO IR, SavedModel, GGUF or folder of Hugging Face"


def names(folder: Path) -> list[str]:
    """The models of a repository: folders that hold a version, or a model themselves."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if NAME.fullmatch(entry.name) and entry.is_dir() and _holds_model(entry)
    )


def versions(folder: Path) -> dict[int, Path]:
    """The version folders of one model, oldest first; a folder that is a model itself is version 1."""
    found = {
        int(entry.name): entry
        for entry in sorted(folder.iterdir())  # of `01` and `1`, always the second
        if entry.is_dir() and VERSION.fullmatch(entry.name)
    }
    if not found and _is_model(folder):
        found = {1: folder}
    return dict(sorted(found.items()))


def entry(repository: Path, model: str) -> ModelEntry:
    """What `model` means on a command line: a name in the repository, a model's folder, a version, a bare file, or
    NAME=PATH, where PATH may also be the folder that holds the model's.

    Raises `UnknownModel`, and `RefusedModel` for a name that cannot stand in an address.
    """
    name, named, place = model.partition("=")
    if named and NAME.fullmatch(name) and not Path(model).exists():
        return ModelEntry(name, _path(place))
    if NAME.fullmatch(model) and (repository / model).is_dir():
        return ModelEntry(model, repository / model)
    path = _path(model)
    if path.is_file():
        name = path.parent.name if path.name == "saved_model.pb" else path.stem
        return ModelEntry(checked_name(name, path), path)
    if path.is_dir():
        path = path.resolve()
        if VERSION.fullmatch(path.name) and NAME.fullmatch(path.parent.name) and _is_model(path):
            return ModelEntry(path.parent.name, path.parent, VersionPolicy(specific=(int(path.name),)))
        return ModelEntry(checked_name(path.name, path), path)
    if named and _path(place).exists():
        raise RefusedModel(
            f"{name!r} is no name for a model; letters, digits, '_', '-' and '.' are, 128 at most, the last two not as"
            " the first"
        )
    known = ", ".join(names(repository)) or "none"
    raise UnknownModel(f"there is no model {model!r}: no such path, and {repository} holds {known}")


def locate(repository: Path, model: str) -> tuple[str, dict[int, Path]]:
    """The name and the versions of what `model` means on a command line (`entry`). Raises `UnknownModel`."""
    found = entry(repository, model)
    there = versions_at(found.name, found.base_path)
    if found.policy is not None:
        there = {version: there[version] for version in found.policy.chosen(there)}
    return found.name, there


def versions_at(name: str, base: Path) -> dict[int, Path]:
    """The versions at TensorFlow Serving's base path: the model's folder, the one above it, or a model. Raises
    `UnknownModel`."""
    if base.is_file():
        return {1: base}
    for folder in (base, base / name):
        found = versions(folder) if folder.is_dir() else {}
        if found:
            return found
    raise UnknownModel(f"{base} {HOLDS_NONE}, no version folders, and no folder {name!r} with either")


def package(name: str, version: int, path: Path, above: ModelConfig | None = None) -> ModelPackage:
    """The model at `path`, checked as far as that goes without an engine; what `above` says comes before its own
    `tidemill.toml`. Raises `RefusedModel` with the reason."""
    said = said_of(path)
    for note in said.notes:
        log.info("%s: no effect here: %s", path.parent / triton_config.NAME, note, extra={"model": name})
    config = overlaid(said.config, above)
    if config.engine in WITHOUT_FILE:
        bounded = config.engine == "echo"
        return ModelPackage(
            name, version, path, config.engine, 0, config, bounded=bounded, source=_source(path), place=path
        )
    found = formats.recognise(_named(path, config.file))
    if found is None:
        raise RefusedModel(f"{path} {HOLDS_NONE}")
    if not config.labels:
        config = msgspec.structs.replace(config, labels=model_config.labels(path, said.labels_file))
    signature: Signature | None = None
    bounded = False
    if found.format == "onnx":
        size, bounded = onnx_files.check(found.path)
    elif found.format == "savedmodel":
        signature = saved_model.signature(found.path, config.signature)
        size = _size(found.path)
    elif found.format == "openvino":
        weights = found.path.with_suffix(".bin")
        if not weights.is_file():
            raise RefusedModel(f"{found.path}: its weights {weights.name} are missing")
        size = found.path.stat().st_size + weights.stat().st_size
    elif found.format == "gguf":
        gguf.read(found.path)
        size = found.path.stat().st_size
    elif found.format == "genai":
        size = genai.read(found.path).size_bytes
    elif found.format == "huggingface":
        size = huggingface.read(found.path).size_bytes
    else:
        raise RefusedModel(f"{found.path} is a {found.format} model, and no engine here serves that format")
    return ModelPackage(name, version, found.path, found.format, size, config, signature, bounded, _source(path), path)


def folder_of(package: ModelPackage) -> Path | None:
    """The model's own folder, which holds its versions where it has several; None for a bare file."""
    place = package.place
    if place is None or not place.is_dir():
        return None
    return place.parent if VERSION.fullmatch(place.name) else place


def said_of(path: Path) -> triton_config.Said:
    """What the version at `path` says of itself. Raises `RefusedModel`."""
    return model_config.read(path, path.parent if path.is_dir() and VERSION.fullmatch(path.name) else None)


def _named(path: Path, file: str | None) -> Path:
    """The file that a model's configuration names in its version's folder. Raises `RefusedModel`."""
    if file is None:
        return path
    if "/" in file or "\\" in file or file in ("", ".", "..") or "\0" in file:
        raise RefusedModel(f"{path}: file = {file!r} is no name of a file in it")
    if not path.is_dir() or not (path / file).exists():
        raise RefusedModel(f"{path} holds no {file!r}, the file that its configuration names")
    return path / file


def elsewhere(place: str) -> str:
    """What is wrong with a place that is an address of a store; "" for every other."""
    found = STORE.match(place)
    if found is None:
        return ""
    return f"{found[1].lower()}:// is a bucket or another store elsewhere, which is not read; copy it to a folder"


def checked_name(name: str, path: Path) -> str:
    """Raises `RefusedModel` for what cannot stand in an address."""
    if not NAME.fullmatch(name):
        raise RefusedModel(
            f"{path}: {name!r} is no name for a model; letters, digits, '_', '-' and '.' are, 128 at most"
        )
    return name


def _path(model: str) -> Path:
    """Raises `UnknownModel` for words that cannot be a path."""
    if reason := elsewhere(model):
        raise UnknownModel(f"there is no model {short(model)}: {reason}")
    try:
        path = Path(model).expanduser()
        path.is_file()
    except (OSError, RuntimeError) as error:  # too long a name; no such user
        raise UnknownModel(f"there is no model {model!r}: {error}") from error
    return path


def _is_model(path: Path) -> bool:
    try:
        return formats.recognise(path) is not None or said_of(path).config.engine in WITHOUT_FILE
    except RefusedModel:
        return True  # there is one, and it will be refused with its reason


def _holds_model(path: Path) -> bool:
    return any(entry.is_dir() and VERSION.fullmatch(entry.name) for entry in path.iterdir()) or _is_model(path)


def _source(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    for place in (folder / MANIFEST_NAME, folder.parent / MANIFEST_NAME):
        if place.is_file():
            try:
                return str(msgspec.json.decode(place.read_bytes()).get("source", ""))
            except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
                return ""
    return ""


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
