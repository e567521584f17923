"""An ensemble's stages: whether they can be met, and their steps made ready; pure decisions, on a thread that loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.package import ModelPackage, Stage
from tidemill.core.tensor import Signature
from tidemill.deploy.steps import home
from tidemill.engine import declared
from tidemill.steps.chain import Chain, build
from tidemill.steps.step import Bounds, Place

ENSEMBLE = "ensemble"
STAGES_MAX = 64


class ReadyStage(msgspec.Struct, frozen=True):
    """A stage and its steps; `where` is what it is called in messages."""

    stage: Stage
    before: Chain
    after: Chain
    where: str


class Ensemble(msgspec.Struct, frozen=True):
    """What is asked in turn."""

    signature: Signature
    stages: tuple[ReadyStage, ...]


def prepare(package: ModelPackage, bounds: Bounds) -> Ensemble:
    """Raises `RefusedModel` for a stage, a step or a signature that cannot be."""
    config = package.config
    if not 0 < len(config.stage) <= STAGES_MAX:
        raise RefusedModel(f"an ensemble has 1 to {STAGES_MAX} [[stage]], this one {len(config.stage)}")
    if config.each is not None:
        raise RefusedModel("[each] is for a model; the stages of an ensemble have `for_each`")
    if config.warm_up:
        raise RefusedModel("[[warm_up]] is for a model; give it to those that the stages ask")
    place = Place(home(package.path), bounds)
    ready = []
    for number, stage in enumerate(config.stage, 1):
        where = f"stage {number} ({stage.model})"
        if not stage.for_each and (stage.collect or stage.join):
            raise RefusedModel(f"{where}: `collect` and `join` gather what `for_each` makes, and there is none")
        before = build(stage.before, place, f"{where} before")
        ready.append(ReadyStage(stage, before, build(stage.after, place, f"{where} after"), where))
    return Ensemble(declared.signature(package), tuple(ready))


def check(name: str, chains: Mapping[str, tuple[str, ...]]) -> None:
    """Hold the ensemble `name` against the models that there are: each with the models that it asks in turn, none but
    for ensembles. Raises `RefusedModel` for a stage that nobody serves, and for a circle."""
    for number, model in enumerate(chains[name], 1):
        if model not in chains:
            known = ", ".join(sorted(chains.keys() - {name})) or "none"
            raise RefusedModel(
                f"stage {number} asks {model!r}, which is not served here; serve it too (served are {known})"
            )
    circle = _circle(name, chains, (name,))
    if circle:
        raise RefusedModel(f"its stages lead back to it: {' -> '.join(circle)}")


class Standing(Protocol):
    """A version, as this needs it; `state` is TensorFlow Serving's word."""

    name: str
    version: int

    @property
    def state(self) -> str: ...


def lacks(stage: Stage, find: Callable[..., object], known: Iterable[Standing]) -> str | None:
    """Why `stage` cannot be asked now; "" where it can, None while a version of its model is still being loaded.

    `find` is the fleet's.
    """
    try:
        find(stage.model, stage.version, stage.label)
    except TidemillError as error:
        mine = [each for each in known if each.name == stage.model]
        wanted = [each for each in mine if stage.version in (None, each.version)] or mine
        loading = any(each.state == "LOADING" for each in wanted)
        return None if loading else f"its stage {stage.model!r} does not serve: {error.message}"
    return ""


def _circle(name: str, chains: Mapping[str, tuple[str, ...]], way: tuple[str, ...]) -> tuple[str, ...]:
    """The way back to where `way` began; empty where there is none."""
    for model in chains.get(name, ()):
        if model == way[0]:
            return (*way, model)
        if model not in way and (found := _circle(model, chains, (*way, model))):
            return found
    return ()
