"""A model and settings to what is built of it ahead of time; runs in the command line's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tidemill.compile import cache, export
from tidemill.core.errors import NotOffered
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.repository import huggingface

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""


class Compiled(msgspec.Struct, frozen=True):
    """`reused` tells that it was there already, `nats` how far its next token is from the source's, on the mean."""

    path: Path
    format: str
    weights: str
    source_bytes: int
    size_bytes: int
    nats: float
    reused: bool
    made_with: dict[str, str]
    spent_s: float


def compiled(settings: Settings, package: ModelPackage, force: bool, progress: Progress) -> Compiled:
    """Build what an engine loads of `package`, or find it in the cache; `force` builds it anew.

    Raises `NotOffered` for a format that needs no building or cannot be built, `RefusedModel`, `RefusedExport`,
    `MissingPart`, `DiskFull`.
    """
    if package.format in ("genai", "gguf"):
        raise NotOffered(f"{package.path} is served as it is: `tidemill serve {package.path}`")
    if package.format != "huggingface":
        raise NotOffered(
            f"{package.path} is a model of the format {package.format}, which is loaded as it is; what is compiled are"
            " language models in Hugging Face's folders"
        )
    began = time.monotonic()
    source = huggingface.read(package.path)
    export.check(source)
    made_with = export.made_with()
    weights = settings.export_weights
    progress("reading the files", 0, len(export.STEPS))
    found, reused = cache.put(
        export.source_digest(source), {"weights": weights}, made_with, export.FORMAT,
        lambda folder: export.export(source, weights, folder, progress), force, settings.compiled_bytes_max,
    )  # fmt: skip
    made = found.artefact
    return Compiled(
        found.path, made.format, weights, source.size_bytes, made.size_bytes, made.measured.get("nats", 0.0), reused,
        made.made_with, time.monotonic() - began,
    )  # fmt: skip
