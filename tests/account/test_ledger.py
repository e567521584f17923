from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from small_engines import ask
from tidemill.account.group_commit import GroupCommit, Row
from tidemill.account.ledger import DurableLedger
from tidemill.core.errors import LedgerUnavailable
from tidemill.core.generation import Tokenise
from tidemill.core.price import Tariff
from tidemill.core.request import Caller, Usage
from tidemill.store.ledger import ChargeRow

CALLER = Caller("acme", "k1")


class Book:
    def __init__(self) -> None:
        self.rows: list[ChargeRow] = []
        self.broken = False

    def __call__(self, rows: Sequence[Row]) -> None:
        if self.broken:
            raise OSError("no space left on device: /secret/path")
        self.rows += [ChargeRow(*row) for row in rows]


async def test_row_says_who_asked_what_and_what_it_costs() -> None:
    book = Book()
    commits = GroupCommit(book, 10)
    request = ask(1, 2, 3)
    ledger = DurableLedger(commits, lambda model, version: Tariff(5))
    async with ledger.charge(CALLER, request) as charge:
        await charge.settle(Usage(calls=2, rows=3))
    await commits.close()
    (row,) = book.rows
    assert (row.id, row.request_id) == (request.charge_id, request.request_id)
    assert (row.tenant, row.key, row.model, row.version) == ("acme", "k1", "m", 1)
    assert (row.calls, row.rows, row.nanos) == (2, 3, 10)
    assert 1_700_000_000_000 < row.at_ms < 10**13


async def test_price_is_that_of_the_moment_of_admission() -> None:
    book = Book()
    commits = GroupCommit(book, 10)
    price = [Tariff(5)]
    ledger = DurableLedger(commits, lambda model, version: price[0])
    async with ledger.charge(CALLER, ask(1)) as charge:
        price[0] = Tariff(500)
        await charge.settle(Usage())
    await commits.close()
    assert book.rows[0].nanos == 5


async def test_tokens_are_booked_with_their_exact_price() -> None:
    book = Book()
    commits = GroupCommit(book, 10)
    ledger = DurableLedger(commits, lambda model, version: Tariff(1, 150, 600, 75))
    async with ledger.charge(CALLER, ask(1)) as charge:
        await charge.settle(Usage(prompt_tokens=1000, completion_tokens=7, cached_tokens=999))
    await commits.close()
    (row,) = book.rows
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (1000, 7, 999)
    assert row.nanos == 1 + 150 + 999 * 75 + 7 * 600


async def test_counting_tokens_costs_the_call_alone() -> None:
    book = Book()
    commits = GroupCommit(book, 10)
    ledger = DurableLedger(commits, lambda model, version: Tariff(7, 150, 600, 75))
    request = msgspec.structs.replace(ask(1), work=Tokenise(text="The mill turns."))
    async with ledger.charge(CALLER, request) as charge:
        await charge.settle(Usage(prompt_tokens=5))
    await commits.close()
    (row,) = book.rows
    assert (row.nanos, row.calls, row.prompt_tokens) == (7, 1, 0)


async def test_charge_that_no_row_can_hold_is_refused_alone() -> None:
    """Goal: one absurd count of tokens (an upstream's word) fails its own request, not the group that it is in."""
    book = Book()
    commits = GroupCommit(book, 10)
    ledger = DurableLedger(commits, lambda model, version: Tariff(0, 10**12))
    async with ledger.charge(CALLER, ask(1)) as good, ledger.charge(CALLER, ask(2)) as bad:
        with pytest.raises(LedgerUnavailable, match="more than one charge can be"):
            await bad.settle(Usage(prompt_tokens=2**40))
        await good.settle(Usage(prompt_tokens=2))
    await commits.close()
    assert [row.nanos for row in book.rows] == [2 * 10**12]


async def test_failing_disk_books_nothing_and_tells_no_secret() -> None:
    book = Book()
    book.broken = True
    commits = GroupCommit(book, 10)
    ledger = DurableLedger(commits, lambda model, version: Tariff(5))
    with pytest.raises(LedgerUnavailable) as caught:
        async with ledger.charge(CALLER, ask(1)) as charge:
            await charge.settle(Usage())
    assert "secret" not in caught.value.message
    await commits.close()
    assert book.rows == []


async def test_charge_stands_though_the_one_who_waits_for_it_is_cancelled() -> None:
    book = Book()
    commits = GroupCommit(book, 10)
    ledger = DurableLedger(commits, lambda model, version: Tariff(5))

    async def asking() -> None:
        async with ledger.charge(CALLER, ask(1)) as charge:
            await charge.settle(Usage())

    task = asyncio.create_task(asking())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await commits.close()
    assert len(book.rows) == 1
