"""Puts a compressed model into the repository, whole or not at all; runs in the command line's process.

`DIR/NAME/VERSION` holds `model.onnx`, the side files of the model it was made from (tokenizer, labels, settings), the
report, and `manifest.json` with the lineage. A version that is there is never touched.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import onnx
from google.protobuf.message import DecodeError

from tidemill.compress import engine_choice
from tidemill.core.errors import DiskFull, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.repository import layout, lineage, model_config
from tidemill.repository.lineage import FileRecord, Lineage, Manifest

MODEL_NAME = "model.onnx"
PARTIAL = ".new-"
STALE_S = 24 * 3600.0
TRIES_MAX = 16
CHUNK_BYTES = 2**20
SIDE_FILES_MAX = 256
SIDE_BYTES_MAX = 256_000_000
KNOWN_SIDE_FILES = frozenset(
    ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json", "labels.txt")
)
"""What is carried over from beside a bare model file, whose folder may hold anything."""


class Writable(Protocol):
    """A finished model, such as a `graph.Graph`."""

    def write(self, path: Path | str) -> None: ...


def next_version(repository: Path, name: str, of: str, force: bool = False) -> int:
    """The version under which a model made from the model `of` will lie. Raises `RefusedModel` where `name` belongs to
    another model, unless `force` lets it become that one's next version."""
    layout.checked_name(name, repository / name)
    home = repository / name
    found = layout.versions(home) if home.is_dir() else {}
    if not found:
        return 1
    newest = max(found)
    manifest = lineage.read(found[newest])
    if not force and (manifest is None or manifest.lineage.of.name != of):
        whose = "was not made by `compress`" if manifest is None else f"was made from {manifest.lineage.of.name!r}"
        raise RefusedModel(
            f"{home} holds a model that {whose}; choose another name for what is made from {of!r} (-o),"
            f" or add it as version {newest + 1} with --force"
        )
    return newest + 1


def publish(
    repository: Path,
    name: str,
    of: ModelPackage,
    graph: Writable,
    told: Lineage,
    report: Callable[[Path, int, Path], object],
    force: bool = False,
    engine: str = "",
) -> tuple[int, Path]:
    """Write the package; returns its version and its folder. `engine` is what its `tidemill.toml` shall name; "" leaves
    that as the original's was.

    `report` is called with the folder to write into, the version, and the model's file. Raises `RefusedModel` as
    `next_version` does, `DiskFull`.
    """
    home = repository / name
    try:
        next_version(repository, name, of.name, force)
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        for _ in range(TRIES_MAX):
            version = next_version(repository, name, of.name, force)
            fresh = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=home))
            try:
                _fill(fresh, name, version, of, graph, told, report, engine)
                fresh.chmod(0o755)
                fresh.rename(home / str(version))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue  # another process took the number
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            return version, home / str(version)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"there is no room left under {home}: nothing was published; make room and say it again"
            ) from error
        raise RefusedModel(
            f"{home} cannot be written: {error}; choose another --models, or make it writable"
        ) from error
    raise RefusedModel(f"{home}: other processes took {TRIES_MAX} versions in a row; end them, and say it again")


def _fill(
    folder: Path, name: str, version: int, of: ModelPackage, graph: Writable, told: Lineage,
    report: Callable[[Path, int, Path], object], engine: str,
) -> None:  # fmt: skip
    graph.write(folder / MODEL_NAME)
    for source, target in side_files(of):
        shutil.copyfile(source, folder / target)
    if engine:
        config = folder / model_config.CONFIG_NAME
        before = config.read_text("utf-8") if config.is_file() else ""
        config.write_text(engine_choice.noted(before, engine), "utf-8")
    report(folder / lineage.REPORT_FOLDER, version, folder / MODEL_NAME)
    files = {
        path.relative_to(folder).as_posix(): FileRecord(digest(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = Manifest(
        name=name,
        version=version,
        source=f"{told.of.name}@{told.of.version} by {' + '.join(told.methods)}",
        files=files,
        lineage=told,
        licence=_of_manifest(of, "licence"),
        description=_of_manifest(of, "description"),
    )
    (folder / layout.MANIFEST_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def side_files(of: ModelPackage) -> Iterator[tuple[Path, str]]:
    """(file, name) of what lies beside the model `of` and belongs to it: not its weights, its manifest or its report.

    Of a version folder that is every small file; beside a bare file only well-known names.
    """
    folder = of.path.parent
    own = {
        of.path.name,
        layout.MANIFEST_NAME,
        model_config.CONFIG_NAME,
        MODEL_NAME,
        *(path.name for path in weights_files(of.path)),
    }
    whole = bool(layout.VERSION.fullmatch(folder.name))
    count = total = 0
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name in own or path.name.startswith("."):
            continue
        if path.suffix in {".onnx", ".data", ".xml", ".bin", ".pb", ".gguf", ".safetensors"}:
            continue
        if not whole and path.name not in KNOWN_SIDE_FILES:
            continue
        count, total = count + 1, total + path.stat().st_size
        if count > SIDE_FILES_MAX or total > SIDE_BYTES_MAX:
            raise RefusedModel(
                f"{folder} holds more than {SIDE_FILES_MAX} files or {SIDE_BYTES_MAX} bytes beside the model;"
                " keep there what belongs to it alone"
            )
        yield path, path.name
    for config in (
        of.path.with_suffix(".toml"),
        folder / model_config.CONFIG_NAME,
        folder.parent / model_config.CONFIG_NAME,
    ):
        if config.is_file() and (config.parent == folder or whole):
            yield config, model_config.CONFIG_NAME
            return


def weights_files(path: Path) -> list[Path]:
    """The files of an ONNX model's external data, in a stable order."""
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise RefusedModel(f"{path} cannot be read: {error}") from error
    names = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / name for name in sorted(names)]


def model_digest(path: Path) -> str:
    """SHA-256 of an ONNX file; where it has external data, of the digests of all its files."""
    files = weights_files(path)
    if not files:
        return digest(path)
    return hashlib.sha256("\n".join(digest(each) for each in (path, *files)).encode()).hexdigest()


def model_bytes(path: Path) -> int:
    """On disk, external data included."""
    return sum(each.stat().st_size for each in (path, *weights_files(path)))


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _sweep(home: Path) -> None:
    """What a killed process left a day ago; a younger one may still be at work."""
    for left in home.glob(f"{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def _of_manifest(of: ModelPackage, field: str) -> str:
    for folder in (of.path.parent, of.path.parent.parent):
        try:
            value = msgspec.json.decode((folder / layout.MANIFEST_NAME).read_bytes()).get(field, "")
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
            continue
        return value if isinstance(value, str) else ""
    return ""
