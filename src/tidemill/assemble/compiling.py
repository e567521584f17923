"""A model and settings to what is built of it ahead of time; runs in the command line's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tidemill.compile import cache, export, gguf_int8
from tidemill.core.errors import NotOffered
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.engine import artefact
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
    began = time.monotonic()
    plan = _plan(settings, package)
    progress("reading the files", 0, plan.steps)
    weights = settings.export_weights
    found, reused = cache.put(
        artefact.digest(plan.files), {"weights": weights}, plan.made_with, artefact.GENAI,
        lambda folder: plan.build(folder, progress), force, settings.compiled_bytes_max,
    )  # fmt: skip
    made = found.artefact
    return Compiled(
        found.path, made.format, weights, plan.source_bytes, made.size_bytes, made.measured.get("nats", 0.0), reused,
        made.made_with, time.monotonic() - began,
    )  # fmt: skip


class _Plan(msgspec.Struct, frozen=True):
    """`files` are what it is built of."""

    files: list[Path]
    source_bytes: int
    made_with: dict[str, str]
    steps: int
    build: Callable[[Path, Progress], dict[str, float]]


def _plan(settings: Settings, package: ModelPackage) -> _Plan:
    weights, path = settings.export_weights, package.path
    if package.format == "gguf":
        if weights != gguf_int8.WEIGHTS:
            raise NotOffered(
                f"{path} is GGUF, which is compiled to {gguf_int8.WEIGHTS} weights alone, not to {weights};"
                f" as it is, it is served without: tidemill serve {path}"
            )
        return _Plan(
            [path],
            path.stat().st_size,
            gguf_int8.made_with(),
            len(gguf_int8.STEPS),
            lambda folder, progress: gguf_int8.build(path, folder, progress),
        )
    if package.format == "genai":
        raise NotOffered(f"{path} is served as it is: `tidemill serve {path}`")
    if package.format != "huggingface":
        raise NotOffered(
            f"{path} is a model of the format {package.format}, which is loaded as it is; what is compiled are language"
            " models: GGUF files and Hugging Face's folders"
        )
    if weights == "file":
        raise NotOffered(f"{path} is a Hugging Face model; it is exported with its weights in int8, f16 or f32")
    source = huggingface.read(path)
    export.check(source)
    return _Plan(
        huggingface.files(path),
        source.size_bytes,
        export.made_with(),
        len(export.STEPS),
        lambda folder, progress: export.export(source, weights, folder, progress),
    )
