"""A language model as `tidemill compile` built it, found in the cache; runs in the owner, on a thread."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

import msgspec

from tidemill.core.errors import NotCompiled, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.engine import artefact
from tidemill.engine.artefact import Found
from tidemill.repository import huggingface

log = logging.getLogger(__name__)

DEFAULT_WEIGHTS = "int8"
AS_IT_IS = "file"


def exported(package: ModelPackage, weights: str) -> ModelPackage:
    """`package` with the path and the format of what was exported from it, its weights in `weights`. Blocks.

    Raises `NotCompiled` with the command that exports it, `RefusedModel` for files that cannot be read.
    """
    found = artefact.of_source(artefact.digest(huggingface.files(package.path)))
    built = _built(package, found, weights)
    if built is not None:
        return built
    if weights == AS_IT_IS:
        raise RefusedModel(
            f"{package.path} is a Hugging Face model, which is exported before it is served: --export-weights is int8,"
            f" f16 or f32, not {weights}"
        )
    others = sorted({each.artefact.options.get("weights", "") for each in found})
    command = f"tidemill compile {shlex.quote(str(package.path))}"
    if weights != DEFAULT_WEIGHTS:
        command += f" --export-weights {weights}"
    raise NotCompiled(
        f"{package.path} is a Hugging Face model, which is exported once before it is served: {command}"
        + (
            f" (exported with weights in {', '.join(others)} it is there: --export-weights says which)"
            if others
            else ""
        )
    )


def quickened(package: ModelPackage, weights: str) -> ModelPackage:
    """`package`, a GGUF, with the path and the format of what was compiled of it to `weights`; as it is where nothing
    was. Blocks.

    Raises `RefusedModel` for a file that cannot be read.
    """
    if weights == AS_IT_IS:
        return package
    found = artefact.of_source(artefact.digest([package.path])) if artefact.some() else []
    built = _built(package, found, weights)
    if built is None:
        log.info(
            "served as it is; compiled once, it answers many sooner, and keeps what the engine rounds of most 4-bit"
            " formats: tidemill compile %s", shlex.quote(str(package.path)), extra={"model": package.name},
        )  # fmt: skip
        return package
    log.info("what `tidemill compile` built of it is served, weights in %s", weights, extra={"model": package.name})
    return built


def _built(package: ModelPackage, found: Sequence[Found], weights: str) -> ModelPackage | None:
    for each in found:
        if each.artefact.options.get("weights") == weights:
            artefact.used(each.path)
            return msgspec.structs.replace(package, path=each.path, format=each.artefact.format)
    return None
