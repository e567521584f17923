"""A model's tokenizer, made of its GGUF file once and kept for the children that follow: making it is a third of what
one takes to load, and a service waits for it when a child was killed. Runs in the children."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

# As in `engine/openvino.py`: else the import forks a process that reports it to an analytics service.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino_genai

from tidemill.engine.generate.messages import Opening

KEPT: Final = "tokenizer"


def tokenizer_of(opening: Opening) -> Any:
    """Out of `opening.kept`, where a child before has left it. Raises `RuntimeError` for a model without one."""
    if not opening.kept or opening.format != "gguf":
        return _loaded(opening.path)
    kept = Path(opening.kept) / KEPT
    try:
        if kept.is_dir():
            return _loaded(kept)
    except RuntimeError:  # somebody swept there
        shutil.rmtree(kept, ignore_errors=True)
    try:
        making = Path(tempfile.mkdtemp(dir=opening.kept))
        link = making / "model.gguf"  # the library writes beside the file that it reads
        link.symlink_to(Path(opening.path).resolve())
    except OSError:
        return _loaded(opening.path)
    made = _loaded(link, enable_save_ov_model=True)
    with suppress(OSError):  # another child was quicker
        link.unlink()
        making.rename(kept)
    return made


def _loaded(place: Path | str, **options: bool) -> Any:
    try:
        return openvino_genai.Tokenizer(place, **options)
    except IndexError as error:  # what the library says of a file that lacks one
        raise RuntimeError(f"{place} tells no tokenizer: {error}") from error
