"""One request through the stages of an ensemble, each batched on its own lane; runs on the owner's loop.

Tensors pass from stage to stage in memory. The deadline of the whole holds for each part, and leaving takes back
whatever part is under way.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Protocol

import numpy as np

from tidemill.core.contracts import Fleet, Served
from tidemill.core.errors import (
    BadMedia,
    EngineFailed,
    MissingInput,
    ModelNotReady,
    TidemillError,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from tidemill.core.request import InferenceRequest, Piece, Usage
from tidemill.core.tensor import Array, Tensors, TensorSpec
from tidemill.deploy.calls import ask, gather, joined
from tidemill.deploy.one_piece import OnePiece
from tidemill.deploy.stages import Ensemble, ReadyStage
from tidemill.deploy.steps import StepPolicy, StepThreads
from tidemill.observe.stats import ModelStats


class Chained(Protocol):
    """A replica, as this needs it."""

    stats: ModelStats


class EnsembleRun(OnePiece):
    """One request to an ensemble."""

    __slots__ = ("_ensemble", "_replica")

    def __init__(
        self,
        fleet: Fleet,
        replica: Chained,
        ensemble: Ensemble,
        request: InferenceRequest,
        threads: StepThreads,
        policy: StepPolicy,
    ) -> None:
        super().__init__(fleet, request, threads, policy)
        self._replica = replica
        self._ensemble = ensemble

    async def _answer(self) -> Piece:
        started = time.monotonic()
        stats = self._replica.stats
        try:
            piece = await self._through()
        except TidemillError:
            stats.failed_s += time.monotonic() - started
            raise
        stats.rows += 1
        stats.runs += 1
        stats.last_at = started
        stats.answered(time.monotonic() - started, 0.0)
        return piece

    async def _through(self) -> Piece:
        values: dict[str, Any] = dict(self._request.tensors.inputs)
        for ready in self._ensemble.stages:
            try:
                values = await self._stage(ready, values)
            except TidemillError as error:
                told = f"{ready.where}: {error.message}"
                raise type(error)(told, retry_after_s=error.retry_after_s) from error
        wanted = self._request.tensors.outputs
        outputs = {
            spec.name: given(values, spec)
            for spec in self._ensemble.signature.outputs
            if not wanted or spec.name in wanted
        }
        return Piece(outputs, Usage(calls=1, rows=1))

    async def _stage(self, ready: ReadyStage, values: dict[str, Any]) -> dict[str, Any]:
        stage = ready.stage
        try:
            served = self._fleet.find(stage.model, stage.version, stage.label)
        except (UnknownModel, UnknownVersion, UnknownLabel) as error:  # it was there when the ensemble was loaded
            raise ModelNotReady(error.message) from error
        if not stage.for_each:
            return await self._once(ready, served, values)
        if stage.for_each not in values:
            raise MissingInput(f"no stage has given {stage.for_each!r}; there are {', '.join(values)}")
        elements = _elements(values[stage.for_each])
        if len(elements) > self._policy.elements_max:
            most = self._policy.elements_max
            raise BadMedia(f"{len(elements)} elements, the most allowed is {most} (--elements-max)")
        calls = [partial(self._once, ready, served, {**values, stage.element: each}) for each in elements]
        found = await gather(calls, self._policy.at_once)
        lists = {mine: [_got(each, theirs) for each in found] for mine, theirs in stage.collect.items()}
        whole = {mine: [_got(each, theirs) for each in found] for mine, theirs in stage.join.items()}
        return {**values, **lists, **{mine: joined(parts) if parts else [] for mine, parts in whole.items()}}

    async def _once(self, ready: ReadyStage, served: Served, values: dict[str, Any]) -> dict[str, Any]:
        """Steps, the model, steps."""
        stage, request = ready.stage, self._request
        found = await self._threads.run(ready.before, values, request.deadline)
        inputs = {}
        for spec in served.signature.inputs:
            inputs[spec.name] = _got(found, stage.inputs.get(spec.name, spec.name))
        served.signature.check(_tensors(inputs))
        wanted = tuple(stage.outputs.values())
        served.signature.check_outputs(wanted)
        answered = await ask(self._fleet, served, inputs, wanted, request)
        named = {mine: _got(answered, theirs) for mine, theirs in stage.outputs.items()} if stage.outputs else answered
        return await self._threads.run(ready.after, {**found, **named}, request.deadline)


def given(values: dict[str, Any], spec: TensorSpec) -> Array:
    """What the stages gave for an output of the ensemble, as it declares it; of nothing, as large as nothing is.

    Raises `EngineFailed` for what is missing or does not fit.
    """
    value = values.get(spec.name)
    if isinstance(value, list) and not value:
        return np.empty([max(side, 0) for side in spec.shape or (0,)], spec.dtype)
    if isinstance(value, list) and spec.datatype == "BYTES":
        value = np.array([each.encode() if isinstance(each, str) else each for each in value], object)
    if not isinstance(value, np.ndarray):
        raise EngineFailed(f"the stages give no tensor {spec.name!r}, which the ensemble declares")
    if value.dtype != spec.dtype and spec.datatype != "BYTES" and value.dtype != object:
        value = value.astype(spec.dtype)
    if value.dtype != spec.dtype or not spec.admits(value.shape):
        raise EngineFailed(
            f"the ensemble's stages give {spec.name!r} as {value.dtype} {list(value.shape)}, and it declares {spec}"
        )
    return np.ascontiguousarray(value)


def _elements(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return [value[place : place + 1] for place in range(value.shape[0] if value.ndim else 0)]
    if isinstance(value, list):
        return value
    raise MissingInput(f"`for_each` wants a list or a tensor, not a {type(value).__name__}")


def _got(values: dict[str, Any] | Tensors, name: str) -> Any:
    if name not in values:
        raise MissingInput(f"there is no {name!r}; there are {', '.join(values)}")
    return values[name]


def _tensors(inputs: dict[str, Any]) -> dict[str, Array]:
    for name, value in inputs.items():
        if not isinstance(value, np.ndarray):
            raise EngineFailed(f"{name!r} is a {type(value).__name__}, the model takes a tensor")
    return inputs
