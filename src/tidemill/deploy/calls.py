"""Requests that a request makes of models, within one process and without a further charge; owner's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from tidemill.core.contracts import Fleet
from tidemill.core.errors import BadMedia
from tidemill.core.package import Each
from tidemill.core.request import InferenceRequest, Predict
from tidemill.core.tensor import Array, Tensors

T = TypeVar("T")


class Asked(Protocol):
    """Who is asked."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...


async def ask(
    fleet: Fleet, model: Asked, inputs: Tensors, outputs: tuple[str, ...], whole: InferenceRequest
) -> Tensors:
    """One call for a part of `whole`, whose deadline holds for it. Cancelling it takes it back."""
    work = Predict(inputs, outputs)
    part = InferenceRequest(
        model.name, model.version, work, whole.request_id, whole.charge_id, whole.deadline, whole.traceparent
    )
    async with fleet.run(part) as pieces:
        return (await anext(pieces)).tensors


async def ask_each(
    fleet: Fleet, model: Asked, inputs: dict[str, Array], each: Each, whole: InferenceRequest, policy: Bound
) -> dict[str, Array]:
    """A call for each row of one input, the others as they are; outputs are joined along dimension 0.

    Raises `BadMedia` for more rows than a request may have.
    """
    rows = inputs[each.rows]
    count = rows.shape[0] if rows.ndim else 0
    if not 0 < count <= policy.elements_max:
        raise BadMedia(f"{count} calls would be needed, 1 to {policy.elements_max} are allowed (--elements-max)")
    parts = [{**inputs, each.rows: rows[place : place + 1]} for place in range(count)]
    if each.carry:
        answers: list[Tensors] = []
        for part in parts:
            carried = {taken: answers[-1][given] for taken, given in each.carry.items()} if answers else {}
            answers.append(await ask(fleet, model, part | carried, (), whole))
    else:
        answers = await gather([partial(ask, fleet, model, part, (), whole) for part in parts], policy.at_once)
    return {name: joined([answer[name] for answer in answers]) for name in answers[0]}


class Bound(Protocol):
    """How many calls one request makes of one model, and how many at once."""

    @property
    def elements_max(self) -> int: ...

    @property
    def at_once(self) -> int: ...


async def gather(calls: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """What all `calls` give, in their order, no more than `at_once` under way. The first that fails cancels the others
    and is raised."""
    answers: list[Any] = [None] * len(calls)
    waiting = iter(enumerate(calls))

    async def work() -> None:
        for place, call in waiting:
            answers[place] = await call()

    tasks = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(calls)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answers


def joined(parts: Sequence[Array]) -> Array:
    """Along dimension 0; scalars make a vector."""
    if any(part.ndim == 0 for part in parts):
        return np.stack(parts)
    return np.concatenate(parts)
