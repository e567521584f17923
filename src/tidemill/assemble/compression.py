"""Settings, a recipe and a name to a compression that can be run; what can be known to be wrong is said first."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from importlib.util import find_spec
from pathlib import Path

import msgspec

from tidemill.compress import publish, recipe, run
from tidemill.compress.recipe import Recipe
from tidemill.compress.run import Done, Job, Progress
from tidemill.core.errors import BadData, InvalidRecipe, RefusedModel
from tidemill.core.settings import Settings
from tidemill.repository import layout

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

KitData = Callable[[str], Path | None]
"""A name to data of the kit, or None."""


def compression(
    settings: Settings, asked: Recipe, name: str, work: Path, command: str, *,
    data: KitData, workers: int | None, measured: bool, force: bool, executor: Executor | None = None,
    engine: str = "",
) -> Callable[[Progress], Done]:  # fmt: skip
    """What carries `asked` out, on a model of the repository, and publishes it as `name`.

    Raises `InvalidRecipe`, `UnknownModel`, `RefusedModel`, `BadData`, `MissingPart`: before any work.
    """
    steps = recipe.check(asked)
    model, versions = layout.locate(settings.models, asked.model)
    version = max(versions)
    of = layout.package(model, version, versions[version])
    if of.format != "onnx":
        raise RefusedModel(f"{of.path} is a {of.format} model; ONNX models are compressed: export it as one")
    named = steps[-1].method.names
    for each in (name, *(f"{name}-{outcome}" for outcome in (named(steps[-1].options) if named else ()))):
        publish.next_version(settings.models, each, of.name, force)
    if asked.targets.time is not None and not measured:
        raise InvalidRecipe("targets.time is asked for, and with --no-measure no time is taken; leave one of them out")
    if engine == "auto" and not measured:
        raise InvalidRecipe("--engine auto takes the quicker engine, and with --no-measure no time is taken; name one")
    source = _source(asked.data, data)
    held = _source(asked.held, data) if asked.held else ""
    job = Job(
        of=of,
        repository=settings.models,
        name=name,
        recipe=asked,
        steps=tuple(steps),
        data=source,
        held=held,
        work=work / _digest(of.path, asked, source, held),
        command=command,
        workers=workers or len(os.sched_getaffinity(0)),
        measured=measured,
        force=force,
        executor=executor,
        engine=engine,
    )
    return lambda progress: run.compress(job, progress)


def _source(asked: str, kit: KitData) -> str:
    """A path, or MODULE:FUNCTION, that is there. Raises `BadData`."""
    path = Path(asked).expanduser()
    try:
        there = path.exists()
    except OSError as error:
        raise BadData(f"data {asked[:80]!r} is no path: {error}") from error
    if there:
        return str(path)
    found = kit(asked)
    if found is not None:
        return str(found)
    if FUNCTION.fullmatch(asked):
        module = asked.partition(":")[0]
        try:
            if find_spec(module) is not None:
                return asked
        except (ImportError, ValueError) as error:
            raise BadData(f"data {asked!r}: there is no module {module!r}: {error}") from error
        raise BadData(f"data {asked!r}: there is no module {module!r}; its folder must be on PYTHONPATH")
    raise BadData(f"there is no data {asked!r}: no such file or folder, no name of the kit, and no MODULE:FUNCTION")


def _digest(model: Path, asked: Recipe, data: str, held: str) -> str:
    """What work belongs to; what is asked of the result does not change it."""
    plain = msgspec.structs.replace(asked, keep=None, targets=recipe.Targets(), model="")
    words = (publish.model_digest(model), data, held, msgspec.json.encode(plain, order="sorted").decode())
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]
