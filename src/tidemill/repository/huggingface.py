"""What a Hugging Face folder of a language model holds, judged before a library reads it; in the owner and the command
line.

`config.json` says what it is, `*.safetensors` are its weights, `tokenizer.json` its tokenizer. Weights in Python's
pickle are programs: they are never read. Layout of safetensors after its format's description: u64 length, JSON header,
values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from tidemill.core.errors import RefusedModel

CONFIG, TOKENIZER, INDEX, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors.index.json", "model.safetensors"
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
JSON_BYTES_MAX: Final = 64 * 2**20
HEADER_BYTES_MAX: Final = 100_000_000
"""The format's own bound."""
FILES_MAX: Final = 1000
READ: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt")
OURS: Final = ("manifest.json", "artefact.json")


class Source(msgspec.Struct, frozen=True):
    """`weights` are the files of the weights, `size_bytes` theirs."""

    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    size_bytes: int

    @property
    def architectures(self) -> tuple[str, ...]:
        said = self.config.get("architectures")
        return tuple(each for each in said if isinstance(each, str)) if isinstance(said, list) else ()


def is_source(folder: Path) -> bool:
    """Whether `folder` looks like one, be it whole or not."""
    if not (folder / CONFIG).is_file():
        return False
    weights = any(entry.is_file() for pattern in ("*.safetensors", *PICKLES) for entry in folder.glob(pattern))
    return weights or (folder / INDEX).is_file()


def read(folder: Path) -> Source:
    """Raises `RefusedModel` for what is missing, broken or a pickle."""
    said = config(folder)
    weights = _weights(folder)
    for each in weights:
        _check(each)
    return Source(folder, said, weights, sum(each.stat().st_size for each in weights))


def config(folder: Path) -> dict[str, Any]:
    """Raises `RefusedModel`."""
    return json_object(folder / CONFIG)


def files(folder: Path) -> list[Path]:
    """What a library may read of it, by name; a folder of more than that is cut, and no model."""
    found = {entry for pattern in READ for entry in folder.glob(pattern) if entry.is_file()}
    return sorted(entry for entry in found if entry.name not in OURS)[:FILES_MAX]


def _weights(folder: Path) -> tuple[Path, ...]:
    if (folder / INDEX).is_file():
        told = json_object(folder / INDEX).get("weight_map")
        if not isinstance(told, dict) or not told:
            raise RefusedModel(f"{folder / INDEX} has no weight_map")
        names = sorted({each if isinstance(each, str) else "" for each in told.values()})
        if strange := [each for each in names if not each or Path(each).name != each or each in (".", "..")]:
            raise RefusedModel(f"{folder / INDEX} names {strange[0]!r}, which is no file beside it")
        missing = [each for each in names if not (folder / each).is_file()]
        if missing:
            raise RefusedModel(
                f"{folder} lacks {', '.join(missing[:3])}, {len(missing)} of {len(names)} files of weights"
            )
        return tuple(folder / each for each in names)
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    others = tuple(sorted(folder.glob("*.safetensors"))[:FILES_MAX])
    if others:
        return others
    pickles = sorted(entry.name for pattern in PICKLES for entry in folder.glob(pattern))
    if pickles:
        raise RefusedModel(
            f"{folder} has its weights in {pickles[0]}, a pickle: reading it would run whatever program is in it;"
            " save the model as safetensors (`model.save_pretrained`)"
        )
    raise RefusedModel(f"{folder} has neither {WEIGHTS} nor {INDEX}")


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _check(path: Path) -> None:
    """Its header, and that it is as long as that says. Raises `RefusedModel`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_BYTES_MAX, size - 8):
            raise RefusedModel(f"{path} is no safetensors file, or is cut short: {size} bytes")
        try:
            header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
            header.pop("__metadata__", None)
            entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedModel(f"{path}: the header of its tensors cannot be read: {error}") from error
    end = max((each.data_offsets[1] for each in entries.values()), default=0)
    if not entries or end != size - 8 - length:
        raise RefusedModel(
            f"{path} has {size - 8 - length} bytes of tensors, its header tells of {end}: it is cut short"
        )
    for name, each in entries.items():
        begin, end = each.data_offsets
        if not 0 <= begin <= end:
            raise RefusedModel(f"{path}: the tensor {name!r} lies from {begin} to {end}")


def json_object(path: Path) -> dict[str, Any]:
    """Raises `RefusedModel`."""
    try:
        if path.stat().st_size > JSON_BYTES_MAX:
            raise RefusedModel(f"{path} has {path.stat().st_size} bytes, at most {JSON_BYTES_MAX} are read")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedModel(f"{path} cannot be read as JSON: {error}") from error
