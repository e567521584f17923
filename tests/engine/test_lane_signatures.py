"""A lane whose model has more signatures than one: an engine for each, one queue before all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from small_engines import POISON, WAIT_S_MAX, FirstRowOnly, SmallEngine, ask
from tidemill.core.errors import Overloaded, RefusedByEngine, UnknownSignature
from tidemill.core.request import InferenceRequest
from tidemill.core.tensor import Array, Tensors
from tidemill.engine.lane import Lane, LanePolicy
from tidemill.observe.stats import ModelStats

TENFOLD = "tenfold"


class Tenfold(SmallEngine):
    def answer(self, x: Array) -> Tensors:
        return {"y": x * 10}


class Bench:
    def __init__(self, own: SmallEngine, other: SmallEngine, policy: LanePolicy) -> None:
        self.own, self.other = own, other
        self.stats = ModelStats()
        self.lane = Lane(own, policy, self.stats, lambda: 0.0, 1e-6, (), {TENFOLD: (other,)})

    async def hold(self) -> asyncio.Future[Tensors]:
        """A request that the lane works on until the own engine's gate is set."""
        self.own.gate.clear()
        self.own.entered.clear()
        held = self.lane.submit(ask(1000))
        assert await asyncio.to_thread(self.own.entered.wait, WAIT_S_MAX)
        return held


@asynccontextmanager
async def bench(
    other: SmallEngine | None = None,
    *,
    joined: bool = True,
    rows_max: int = 8,
    waiting_max: int = 100,
    inline_s_max: float = 0.0,
) -> AsyncIterator[Bench]:
    further = frozenset({TENFOLD} if joined else ())
    policy = LanePolicy(True, rows_max, waiting_max, inline_s_max, further=further)
    made = Bench(SmallEngine(), other or Tenfold(), policy)
    try:
        yield made
    finally:
        made.own.gate.set()
        await asyncio.wait_for(made.lane.close(), WAIT_S_MAX)


def of(request: InferenceRequest, signature: str = TENFOLD) -> InferenceRequest:
    return msgspec.structs.replace(request, work=msgspec.structs.replace(request.tensors, signature=signature))


async def answers(*futures: asyncio.Future[Tensors]) -> list[Any]:
    ended = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), WAIT_S_MAX)
    return [each if isinstance(each, BaseException) else each["y"].ravel().tolist() for each in ended]


@pytest.mark.parametrize("inline_s_max", [0.0, 1e9])
async def test_each_request_is_answered_by_the_signature_that_it_names(inline_s_max: float) -> None:
    async with bench(inline_s_max=inline_s_max) as b:
        futures = [b.lane.submit(of(ask(n)) if n % 2 else ask(n)) for n in range(20)]
        assert await answers(*futures) == [[n * 10.0 if n % 2 else n * 2.0] for n in range(20)]
        assert not b.own.overlapped


async def test_rows_are_joined_with_those_of_the_same_signature_alone() -> None:
    async with bench() as b:
        held = await b.hold()
        futures = [b.lane.submit(each) for each in (ask(1), of(ask(2)), ask(3), of(ask(4)))]
        b.own.gate.set()
        assert await answers(held, *futures) == [[2000.0], [2.0], [20.0], [6.0], [40.0]]
        assert b.own.calls == [[1000.0], [1.0, 3.0]]
        assert b.other.calls == [[2.0, 4.0]]


async def test_a_signature_whose_rows_may_not_be_joined_runs_one_request_at_a_time() -> None:
    async with bench(joined=False) as b:
        held = await b.hold()
        futures = [b.lane.submit(each) for each in (ask(1), of(ask(2)), ask(3), of(ask(4)))]
        b.own.gate.set()
        assert await answers(held, *futures) == [[2000.0], [2.0], [20.0], [6.0], [40.0]]
        assert b.own.calls == [[1000.0], [1.0, 3.0]]
        assert b.other.calls == [[2.0], [4.0]]


async def test_a_request_of_more_rows_than_a_batch_is_cut_for_its_own_signature() -> None:
    async with bench(rows_max=2) as b:
        (answer,) = await answers(b.lane.submit(of(ask(1, 2, 3, 4, 5))))
        assert answer == [10.0, 20.0, 30.0, 40.0, 50.0]
        assert b.other.calls == [[1.0, 2.0], [3.0, 4.0], [5.0]]
        assert not b.own.calls


async def test_one_that_mixes_rows_runs_whole_from_then_on_and_the_others_are_joined_still() -> None:
    async with bench(FirstRowOnly(), rows_max=2) as b:
        first, second = of(ask(1, 2, 3)), of(ask(4, 5, 6))
        await answers(b.lane.submit(first))
        await answers(b.lane.submit(second))
        assert b.other.calls[-1] == [4.0, 5.0, 6.0]
        held = await b.hold()
        futures = [b.lane.submit(ask(1)), b.lane.submit(ask(2))]
        b.own.gate.set()
        assert await answers(held, *futures) == [[2000.0], [2.0], [4.0]]
        assert b.own.calls[-1] == [1.0, 2.0]


async def test_what_one_refuses_harms_no_other() -> None:
    async with bench() as b:
        held = await b.hold()
        futures = [b.lane.submit(each) for each in (of(ask(POISON)), of(ask(2)), ask(3))]
        b.own.gate.set()
        _, poisoned, joined, other = await answers(held, *futures)
        assert isinstance(poisoned, RefusedByEngine)
        assert (joined, other) == ([20.0], [6.0])


async def test_one_bound_holds_for_all_that_wait() -> None:
    async with bench(waiting_max=2) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(of(ask(2)))]
        for request in (ask(3), of(ask(3))):
            with pytest.raises(Overloaded, match="2 requests wait"):
                b.lane.submit(request)
        b.own.gate.set()
        assert await answers(held, *waiting) == [[2000.0], [2.0], [20.0]]


async def test_one_that_no_engine_answers_is_unknown() -> None:
    async with bench() as b:
        with pytest.raises(UnknownSignature, match="'gone' any more"):
            b.lane.submit(of(ask(1), "gone"))
        assert b.lane.waiting == 0


async def test_all_are_closed_when_what_waits_has_been_answered() -> None:
    async with bench() as b:
        held = await b.hold()
        waiting = b.lane.submit(of(ask(2)))
        closing = asyncio.create_task(b.lane.close())
        b.own.gate.set()
        assert await answers(held, waiting) == [[2000.0], [20.0]]
        await asyncio.wait_for(closing, WAIT_S_MAX)
        assert (b.own.closed, b.other.closed) == (1, 1)
