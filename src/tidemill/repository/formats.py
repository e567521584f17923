"""What a model file or folder is, by its content, never by its name alone; used by the owner and the command line."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tidemill.core.errors import RefusedModel
from tidemill.repository import huggingface

FORMATS = ("onnx", "openvino", "savedmodel", "gguf", "genai", "huggingface", "echo", "ensemble", "remote")
HEAD_BYTES = 4096
ENTRIES_MAX = 10_000
GENAI = ("openvino_model.xml", "openvino_tokenizer.xml")
"""What a folder of a language model in OpenVINO's IR holds, in openvino-genai's names."""
FOLDERS = ("model.savedmodel", "model.onnx")
"""In Triton's layout a model of several files is a folder of such a name within its version's."""


class Found(msgspec.Struct, frozen=True):
    """A model and the file or folder that its engine opens."""

    format: str
    path: Path


def recognise(path: Path) -> Found | None:
    """The model at `path`: a file, or a folder that holds one, or holds a folder of Triton's that does. None when there
    is none."""
    found = _recognised(path)
    inner = [path / name for name in FOLDERS if (path / name).is_dir()] if found is None else []
    return _recognised(inner[0]) if len(inner) == 1 else found


def _recognised(path: Path) -> Found | None:
    if path.is_file():
        kind = _file_format(path)
        return Found(kind, path.parent if kind == "savedmodel" else path) if kind else None
    if not path.is_dir():
        return None
    if (path / "saved_model.pb").is_file():
        return Found("savedmodel", path)
    if all((path / name).is_file() for name in GENAI):
        return Found("genai", path)
    found = [
        Found(kind, entry)
        for entry in sorted(path.iterdir())[:ENTRIES_MAX]
        if entry.is_file() and (kind := _file_format(entry))
    ]
    if len(found) > 1:
        named = [each for each in found if each.path.stem == "model"]
        if len(named) != 1:
            names = ", ".join(each.path.name for each in found)
            raise RefusedModel(f"{path} holds several models ({names}); name one of them, or call it model.*")
        found = named
    if found:
        return found[0]
    return Found("huggingface", path) if huggingface.is_source(path) else None


def _file_format(path: Path) -> str | None:
    if path.name == "saved_model.pb":
        return "savedmodel"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"GGUF"):
        return "gguf"
    if _is_ir(path, head):
        return "openvino"
    if _is_onnx(path, head):
        return "onnx"
    return None


def _is_ir(path: Path, head: bytes) -> bool:
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    return (text.startswith(b"<?xml") and b"<net " in text) or text.startswith(b"<net ")


def _is_onnx(path: Path, head: bytes) -> bool:
    """`ModelProto` starts with `ir_version` (field 1, a varint) in every exporter we know; then another field's tag.

    A file called `.onnx` is taken for one whatever it holds, so that a corrupt one is refused with a reason rather than
    passed over.
    """
    if path.suffix == ".onnx":
        return True
    if len(head) < 4 or head[0] != 0x08 or head[1] > 0x20:
        return False
    return head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
