from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from fakes import CALLER, HALVE, FakeServed, halve
from small_engines import ask
from tidemill.core.errors import Draining, Overloaded
from tidemill.serve.queue import BoundedQueue

SERVED = FakeServed("m", 1, HALVE, halve)
OTHER = FakeServed("other", 1, HALVE, halve)


async def test_one_more_than_the_bound_is_refused_at_the_headers_and_at_the_slot() -> None:
    queue = BoundedQueue(2, lambda: False)
    async with AsyncExitStack() as stack:
        for version in (1, 2):
            queue.limit(CALLER, SERVED)
            await stack.enter_async_context(queue.slot(ask(1, version=version)))
        with pytest.raises(Overloaded, match="'m' holds 2") as caught:
            queue.limit(CALLER, SERVED)
        assert caught.value.retry_after_s
        with pytest.raises(Overloaded):
            await stack.enter_async_context(queue.slot(ask(1)))
        assert queue.in_flight == 2
    assert queue.in_flight == 0
    queue.limit(CALLER, SERVED)


async def test_full_model_leaves_room_for_the_others() -> None:
    queue = BoundedQueue(1, lambda: False)
    async with queue.slot(ask(1)):
        queue.limit(CALLER, OTHER)
        async with queue.slot(ask(1, model="other")):
            assert queue.in_flight == 2
            with pytest.raises(Overloaded):
                queue.limit(CALLER, OTHER)


async def test_draining_refuses_what_comes_and_lets_finish_what_is_in() -> None:
    draining = [False]
    queue = BoundedQueue(2, lambda: draining[0])
    queue.limit(CALLER, SERVED)
    draining[0] = True
    with pytest.raises(Draining) as caught:
        queue.limit(CALLER, SERVED)
    assert caught.value.retry_after_s
    async with queue.slot(ask(1)):
        assert queue.in_flight == 1
    assert queue.in_flight == 0


async def test_refused_slot_gives_back_nothing_it_never_had() -> None:
    queue = BoundedQueue(1, lambda: False)
    async with queue.slot(ask(1)):
        for _ in range(3):
            with pytest.raises(Overloaded):
                async with queue.slot(ask(1)):
                    raise AssertionError
        assert queue.in_flight == 1
    async with queue.slot(ask(1)):
        assert queue.in_flight == 1


async def test_many_that_come_and_leave_in_any_order_leave_nothing_behind() -> None:
    queue = BoundedQueue(50, lambda: False)
    leave = [asyncio.Event() for _ in range(50)]

    async def one(number: int) -> None:
        async with queue.slot(ask(1, model=f"m{number % 7}")):
            await leave[number].wait()

    tasks = [asyncio.create_task(one(number)) for number in range(50)]
    await asyncio.sleep(0)
    assert queue.in_flight == 50
    for number in sorted(range(50), key=lambda number: number * 37 % 50):
        leave[number].set() if number % 3 else tasks[number].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert queue.in_flight == 0
