"""`Gate`: a place is given back in every ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fakes import CALLER, HALVE, FakeGate, FakeServed, halve
from small_engines import ask
from tidemill.core.contracts import Gate
from tidemill.core.errors import Draining, Overloaded
from tidemill.serve.queue import BoundedQueue

SERVED = FakeServed("m", 1, HALVE, halve)
Counted = tuple[Gate, Callable[[], int]]
"""A gate, and how many places are taken."""


def _queue() -> Counted:
    queue = BoundedQueue(3, lambda: False)
    return queue, lambda: queue.in_flight


def _fake() -> Counted:
    fake = FakeGate()
    return fake, lambda: fake.held


@pytest.fixture(params=[_queue, _fake], ids=["queue", "fake"])
def counted(request: pytest.FixtureRequest) -> Counted:
    made: Counted = request.param()
    return made


async def test_place_is_held_for_the_length_of_the_block(counted: Counted) -> None:
    gate, held = counted
    gate.limit(CALLER, SERVED)
    assert held() == 0
    async with gate.slot(ask(1)):
        assert held() == 1
        async with gate.slot(ask(1)):
            assert held() == 2
    assert held() == 0


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt])
async def test_place_is_given_back_whatever_ends_the_block(counted: Counted, error: type[BaseException]) -> None:
    gate, held = counted
    with pytest.raises(error):
        async with gate.slot(ask(1)):
            raise error
    assert held() == 0


async def test_slot_that_is_never_entered_takes_no_place(counted: Counted) -> None:
    counted[0].slot(ask(1))
    assert counted[1]() == 0


@pytest.mark.parametrize("gate", [BoundedQueue(0, lambda: True), FakeGate()], ids=["queue", "fake"])
def test_gate_refuses_with_its_reason(gate: Gate) -> None:
    if isinstance(gate, FakeGate):
        gate.refusal = Draining("going down")
    with pytest.raises((Draining, Overloaded)):
        gate.limit(CALLER, SERVED)
