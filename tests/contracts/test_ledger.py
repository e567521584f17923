"""`Ledger`: one charge for each request that was answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from fakes import FakeLedger
from small_engines import ask
from tidemill.account.group_commit import GroupCommit
from tidemill.account.ledger import DurableLedger, FreeLedger
from tidemill.core.contracts import Ledger
from tidemill.core.price import Tariff
from tidemill.core.request import Caller, Usage
from tidemill.store import database
from tidemill.store import ledger as charges

CALLER = Caller("acme", "k1")
Booked = tuple[Ledger, Callable[[], int]]
"""A ledger, and how many charges it has booked."""


async def _durable(folder: Path) -> AsyncIterator[Booked]:
    with closing(database.connect(folder)) as writer, closing(database.connect(folder)) as reader:
        commits = GroupCommit(lambda rows: charges.book(writer, rows), 100)
        yield DurableLedger(commits, lambda model, version: Tariff(5)), lambda: charges.total(reader)[0]
        await commits.close()


async def _fake(folder: Path) -> AsyncIterator[Booked]:
    fake = FakeLedger()
    yield fake, lambda: len(fake.booked)


async def _free(folder: Path) -> AsyncIterator[Booked]:
    yield FreeLedger(), lambda: 0


KINDS = {"durable": _durable, "fake": _fake, "free": _free}


@pytest.fixture(params=KINDS)
async def booked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Booked]:
    async for made in KINDS[request.param](tmp_path):
        yield made


def costs(booked: Booked, count: int) -> bool:
    """Whether so many charges stand: none ever, where answers are free."""
    return booked[1]() == (0 if isinstance(booked[0], FreeLedger) else count)


async def test_settled_charge_stands_when_settle_returns(booked: Booked) -> None:
    async with booked[0].charge(CALLER, ask(1)) as charge:
        assert costs(booked, 0)
        await charge.settle(Usage())
        assert costs(booked, 1)
    assert costs(booked, 1)


async def test_leaving_without_settling_books_nothing(booked: Booked) -> None:
    async with booked[0].charge(CALLER, ask(1)):
        pass
    with pytest.raises(ZeroDivisionError):
        async with booked[0].charge(CALLER, ask(1)):
            _ = 1 / 0
    assert costs(booked, 0)


async def test_settling_an_id_again_books_nothing(booked: Booked) -> None:
    request = ask(1)
    for _ in range(2):
        async with booked[0].charge(CALLER, request) as charge:
            await charge.settle(Usage())
            await charge.settle(Usage())
    assert costs(booked, 1)


async def test_failure_after_settling_takes_nothing_back(booked: Booked) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failure within is what is asked
        async with booked[0].charge(CALLER, ask(1)) as charge:
            await charge.settle(Usage())
            _ = 1 / 0
    assert costs(booked, 1)


async def test_charges_of_several_requests_do_not_meet(booked: Booked) -> None:
    async with (
        booked[0].charge(CALLER, ask(1)) as one,
        booked[0].charge(CALLER, ask(2)),
        booked[0].charge(CALLER, ask(3)) as three,
    ):
        await three.settle(Usage())
        await one.settle(Usage())
    assert costs(booked, 2)
