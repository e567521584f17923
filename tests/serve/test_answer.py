"""One request's way: each place is given back in every ending, and only what was answered is settled.

Method: charge, slot and run are replaced by parts that note what happens to them, and that fail or wait where told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import pytest

from fakes import CALLER, HALVE, KEY, FakeGate, FakeIdentity, FakeServed, FakeService, halve
from small_engines import ask
from tidemill.core.errors import EngineFailed, InvalidKey, LedgerUnavailable, MissingKey, Overloaded
from tidemill.core.request import Caller, InferenceRequest, Piece, Usage
from tidemill.serve.answer import Service
from tidemill.serve.meter import Meter

PARTS = ("charge", "slot", "run")
AWAITS = ("enter charge", "enter slot", "enter run", "next piece", "settle")


def admit(service: Service, credential: str, served: Any) -> Caller:
    """What a door does before it reads a body."""
    caller = service.identity.recognise(credential)
    service.gate.limit(caller, served)
    return caller


class Way:
    """What happened, in order; where to fail (`broken`) and where to wait for ever (`stuck`)."""

    def __init__(self, broken: str = "", stuck: str = "", pieces: int = 1) -> None:
        self.events: list[str] = []
        self.broken = broken
        self.stuck = stuck
        self.pieces = pieces
        self.arrived = asyncio.Event()

    async def step(self, name: str) -> None:
        if name == self.stuck:
            self.arrived.set()
            await asyncio.Event().wait()
        if name == self.broken:
            raise LedgerUnavailable(name)
        self.events.append(name)

    def held(self) -> set[str]:
        """The parts entered and not left."""
        return {part for part in PARTS if self.events.count(f"enter {part}") > self.events.count(f"leave {part}")}

    def service(self) -> Service:
        return Service(FakeIdentity(), FakeGate(), _Ledger(self), _Fleet(self))


class _Part:
    def __init__(self, way: Way, name: str) -> None:
        self.way = way
        self.name = name

    async def __aenter__(self) -> Any:
        await self.way.step(f"enter {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.way.events.append(f"leave {self.name}")
        if self.way.broken == f"leave {self.name}":
            raise LedgerUnavailable(self.way.broken)


class _Charge(_Part):
    async def settle(self, usage: Usage) -> None:
        await self.way.step("settle")


class _Run(_Part):
    async def __aenter__(self) -> AsyncIterator[Piece]:
        await super().__aenter__()
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[Piece]:
        for number in range(self.way.pieces):
            await self.way.step("next piece")
            yield Piece({}, Usage() if number == self.way.pieces - 1 else None)


class _Ledger:
    def __init__(self, way: Way) -> None:
        self.way = way

    def charge(self, caller: Caller, request: InferenceRequest) -> _Charge:
        return _Charge(self.way, "charge")


class _Fleet:
    def __init__(self, way: Way) -> None:
        self.way = way

    def run(self, request: InferenceRequest) -> _Run:
        return _Run(self.way, "run")


@pytest.fixture(autouse=True)
def slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's slot notes too; which way it belongs to is found by its ledger."""
    opened = Service.open

    def open_noting(self: Service, caller: Caller, request: InferenceRequest) -> Any:
        if isinstance(self.ledger, _Ledger):
            way = self.ledger.way
            self.gate.slot = lambda request: _Part(way, "slot")  # type: ignore[method-assign, assignment, return-value]
        return opened(self, caller, request)

    monkeypatch.setattr(Service, "open", open_noting)


async def answer(way: Way) -> list[Piece]:
    async with way.service().open(CALLER, ask(1)) as pieces:
        return [piece async for piece in pieces]


async def test_way_is_charge_slot_run_and_back() -> None:
    way = Way(pieces=3)
    assert len(await answer(way)) == 3
    assert way.events == [
        "enter charge", "enter slot", "enter run", "next piece", "next piece", "next piece",
        "leave run", "leave slot", "settle", "leave charge",
    ]  # fmt: skip


@pytest.mark.parametrize("where", AWAITS)
async def test_failure_anywhere_gives_all_places_back(where: str) -> None:
    way = Way(broken=where)
    with pytest.raises(LedgerUnavailable, match=where):
        await answer(way)
    assert way.held() == set()
    assert ("settle" in way.events) is False


@pytest.mark.parametrize("where", AWAITS)
async def test_cancellation_at_any_await_gives_all_places_back(where: str) -> None:
    way = Way(stuck=where)
    task = asyncio.create_task(answer(way))
    await asyncio.wait_for(way.arrived.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert way.held() == set()
    assert "settle" not in way.events


@pytest.mark.parametrize("where", [f"leave {part}" for part in PARTS])
async def test_part_that_fails_on_leaving_keeps_no_other_place(where: str) -> None:
    way = Way(broken=where)
    with pytest.raises(LedgerUnavailable, match=where):
        await answer(way)
    assert way.held() == set()


@pytest.mark.parametrize("where", ["enter slot", "enter run"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit])
async def test_even_the_end_of_the_process_gives_places_back(where: str, error: type[BaseException]) -> None:
    way = Way()
    plain = way.step

    async def step(name: str) -> None:
        if name == where:
            raise error
        await plain(name)

    way.step = step  # type: ignore[method-assign]
    reply = way.service().open(CALLER, ask(1))
    with pytest.raises(error):
        await reply.__aenter__()
    assert way.held() == set()


async def test_caller_who_vanishes_after_the_first_piece_pays_nothing() -> None:
    way = Way(pieces=2)
    async with way.service().open(CALLER, ask(1)) as pieces:
        await anext(pieces)
    assert "settle" not in way.events
    assert way.held() == set()


async def test_caller_who_never_reads_pays_nothing() -> None:
    way = Way()
    async with way.service().open(CALLER, ask(1)):
        assert way.held() == set(PARTS)
    assert way.held() == set()
    assert "settle" not in way.events


async def test_reply_that_is_never_entered_holds_nothing() -> None:
    way = Way()
    way.service().open(CALLER, ask(1))
    assert way.events == []


async def test_reply_ends_well_only_when_its_charge_is_durable() -> None:
    way = Way(broken="settle", pieces=2)
    seen: list[Piece] = []

    async def read() -> None:
        async with way.service().open(CALLER, ask(1)) as pieces:
            async for piece in pieces:
                seen.append(piece)  # noqa: PERF401 - what came before the failure is what is asked

    with pytest.raises(LedgerUnavailable):
        await read()
    assert len(seen) == 2
    assert way.held() == set()


async def test_answer_that_cannot_be_worded_is_not_charged() -> None:
    way = Way()

    async def word() -> None:
        async with way.service().open(CALLER, ask(1)) as pieces:
            await anext(pieces)
            raise EngineFailed("the outputs have no rows")

    with pytest.raises(EngineFailed):
        await word()
    assert "settle" not in way.events
    assert way.held() == set()


async def test_reply_left_before_its_last_piece_is_not_charged() -> None:
    way = Way(pieces=2)
    async with way.service().open(CALLER, ask(1)) as pieces:
        await anext(pieces)
    assert "settle" not in way.events


async def test_meter_without_a_last_piece_counts_nothing() -> None:
    async def none() -> AsyncIterator[Piece]:
        yield Piece({})

    meter = Meter(none())
    assert len([piece async for piece in meter]) == 1
    assert meter.usage is None


async def test_engine_that_fails_costs_nothing_and_keeps_no_place() -> None:
    def broken(inputs: Any) -> Any:
        raise Overloaded("no")

    service = FakeService(FakeServed("m", 1, HALVE, broken))
    with pytest.raises(Overloaded):
        async with service.open(CALLER, ask(1)) as pieces:
            await anext(pieces)
    assert service.ledger.booked == {}
    assert service.gate.held == 0


async def test_cancelled_while_the_engine_works_costs_nothing_and_keeps_no_place() -> None:
    service = FakeService(FakeServed("m", 1, HALVE, halve))
    service.fleet.held = asyncio.Event()

    async def read() -> None:
        async with service.open(CALLER, ask(1)) as pieces:
            await anext(pieces)

    task = asyncio.create_task(read())
    await asyncio.wait_for(service.fleet.arrived.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.fleet.cancelled.is_set()
    assert service.ledger.booked == {}
    assert service.gate.held == 0


def test_admission_asks_who_before_it_asks_whether() -> None:
    service = FakeService()
    service.gate.refusal = Overloaded("full")
    served = service.fleet.find("half")
    with pytest.raises(MissingKey):
        admit(service, "", served)
    with pytest.raises(InvalidKey):
        admit(service, "wrong", served)
    with pytest.raises(Overloaded):
        admit(service, KEY, served)
    service.gate.refusal = None
    assert admit(service, KEY, served) == CALLER


def test_failures_are_counted_under_their_model_or_under_none() -> None:
    service = FakeService()
    served = service.fleet.find("half")
    service.failed(served, "input.shape")
    for _ in range(2):
        service.failed(None, "model.unknown")
    assert served.failures == ["input.shape"]
    assert service.failures == {"model.unknown": 2}
