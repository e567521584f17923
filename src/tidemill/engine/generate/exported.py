"""A Hugging Face model as it was exported by `tidemill compile`, found in the cache; runs in the owner, on a thread."""

from __future__ import annotations

import shlex

import msgspec

from tidemill.core.errors import NotCompiled
from tidemill.core.package import ModelPackage
from tidemill.engine import artefact
from tidemill.repository import huggingface

DEFAULT_WEIGHTS = "int8"


def exported(package: ModelPackage, weights: str) -> ModelPackage:
    """`package` with the path and the format of what was exported from it, its weights in `weights`. Blocks.

    Raises `NotCompiled` with the command that exports it, `RefusedModel` for files that cannot be read.
    """
    found = artefact.of_source(artefact.digest(huggingface.files(package.path)))
    for each in found:
        if each.artefact.options.get("weights") == weights:
            artefact.used(each.path)
            return msgspec.structs.replace(package, path=each.path, format=each.artefact.format)
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
