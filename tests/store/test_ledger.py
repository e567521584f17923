from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.store import database, ledger


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database.connect(tmp_path)) as made:
        yield made


TOKENS = {"prompt_tokens": 4, "completion_tokens": 5, "cached_tokens": 2}


def row(number: int, **other: Any) -> tuple[Any, ...]:
    told = {"id": f"c{number}", "tenant": "t", "key": "k", "model": "m", "version": 1, "request_id": "r"}
    return tuple((told | {"calls": 1, "rows": 2, "nanos": 3, "at": 1000, **TOKENS} | other).values())


def test_row_comes_back_as_it_was_booked_for_another_connection(connection: sqlite3.Connection, tmp_path: Path) -> None:
    ledger.book(connection, [row(1, tenant="'; --", request_id="ä\0")])
    with closing(database.connect(tmp_path)) as other:
        assert ledger.charges(other, "ä\0") == [ledger.ChargeRow(*row(1, tenant="'; --", request_id="ä\0"))]


def test_same_id_is_booked_once_and_the_first_stands(connection: sqlite3.Connection) -> None:
    ledger.book(connection, [row(1), row(1, nanos=9)])
    ledger.book(connection, [row(1, nanos=9), row(2)])
    assert ledger.total(connection) == (2, 6)


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_group_of_any_size_is_booked_whole(connection: sqlite3.Connection, count: int) -> None:
    ledger.book(connection, [row(number) for number in range(count)])
    assert ledger.total(connection) == (count, 3 * count)


@pytest.mark.parametrize("count", [2, 1500])
@pytest.mark.parametrize("bad", [{"nanos": 2**63}, {"tenant": object()}])
def test_group_with_a_bad_row_is_booked_not_at_all(
    connection: sqlite3.Connection, count: int, bad: dict[str, Any]
) -> None:
    with pytest.raises((OverflowError, sqlite3.Error)):
        ledger.book(connection, [row(number) for number in range(count)] + [row(count, **bad)])
    assert ledger.total(connection) == (0, 0)
    ledger.book(connection, [row(0)])
    assert ledger.total(connection) == (1, 3)


def test_usage_is_summed_by_tenant_key_and_model(connection: sqlite3.Connection) -> None:
    ledger.book(connection, [row(1), row(2), row(3, key="k2"), row(4, tenant="u"), row(5, version=2), row(6, at=999)])
    found = ledger.usage(connection, "t", 1000)
    assert [(each.key, each.version, each.calls, each.rows, each.nanos) for each in found] == [
        ("k", 1, 2, 4, 6),
        ("k", 2, 1, 2, 3),
        ("k2", 1, 1, 2, 3),
    ]
    assert sum(each.calls for each in ledger.usage(connection)) == 6
    assert ledger.usage(connection, "nobody") == []


def test_tokens_are_summed_beside_calls(connection: sqlite3.Connection) -> None:
    ledger.book(connection, [row(1), row(2), row(3, prompt_tokens=0, completion_tokens=0, cached_tokens=0)])
    (found,) = ledger.usage(connection)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (8, 10, 4)
    assert (found.calls, found.nanos) == (3, 9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("tu"), st.integers(0, 10**12)), max_size=30))
def test_sums_balance_with_the_total_whatever_is_booked_twice(rows: list[tuple[int, str, int]]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for migrate in database.MIGRATIONS:
            migrate(connection)
        first: dict[int, int] = {}
        for number, tenant, nanos in rows:
            ledger.book(connection, [row(number, tenant=tenant, nanos=nanos)])
            first.setdefault(number, nanos)
        assert ledger.total(connection) == (len(first), sum(first.values()))
        found = ledger.usage(connection)
        assert sum(each.nanos for each in found) == sum(first.values())
