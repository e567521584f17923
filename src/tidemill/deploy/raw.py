"""One request with what a person sends: steps, the model, steps; runs on the owner's loop and the steps' threads."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tidemill.core.contracts import Fleet
from tidemill.core.errors import EngineFailed, UnsupportedMedia
from tidemill.core.package import ModelPackage
from tidemill.core.request import RAW, InferenceRequest, Piece, Usage
from tidemill.core.tensor import Signature, rows
from tidemill.deploy.calls import ask, ask_each
from tidemill.deploy.one_piece import OnePiece
from tidemill.deploy.steps import StepPolicy, Steps, StepThreads, check_inputs


class Stepped(Protocol):
    """A replica, as this needs it."""

    package: ModelPackage
    name: str
    version: int
    signature: Signature
    batched: bool
    steps: Steps


class RawRun(OnePiece):
    """One raw request."""

    __slots__ = ("_replica",)

    def __init__(
        self, fleet: Fleet, replica: Stepped, request: InferenceRequest, threads: StepThreads, policy: StepPolicy
    ) -> None:
        super().__init__(fleet, request, threads, policy)
        self._replica = replica

    def _check(self) -> None:
        replica = self._replica
        if not replica.steps.accepts:
            raise UnsupportedMedia(f"model {replica.name!r} takes tensors alone: its tidemill.toml has no [[pre]]")

    async def _answer(self) -> Piece:
        replica, request = self._replica, self._request
        sent: bytes = request.tensors.inputs[RAW].reshape(-1)[0]
        values = await self._threads.run(replica.steps.pre, {RAW: sent}, request.deadline)
        inputs = check_inputs(replica.signature, values)
        each = replica.package.config.each
        if each is None:
            answered: Any = await ask(self._fleet, replica, inputs, (), request)
        else:
            if each.rows not in inputs:
                raise EngineFailed(f"[each] names {each.rows!r}, which no step gives")
            answered = await ask_each(self._fleet, replica, inputs, each, request, self._policy)
        values.update(answered)
        told = await self._threads.answer(replica.steps.post, values, _names(replica.signature), request.deadline)
        count = rows(inputs) if each is None and replica.batched else len(inputs[each.rows]) if each else 1
        return Piece({RAW: one(told)}, Usage(calls=1, rows=count or 1))


def _names(signature: Signature) -> tuple[str, ...]:
    return tuple(spec.name for spec in signature.outputs)


def one(value: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """BYTES [1]."""
    array = np.empty(1, object)
    array[0] = value
    return array
