"""Charges in the database; written by the owner's ledger thread, read by the owner and the command line."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec


class ChargeRow(msgspec.Struct, frozen=True, array_like=True):
    """One answered request, as it is booked. `at_ms` is milliseconds since 1970."""

    id: str
    tenant: str
    key: str
    model: str
    version: int
    request_id: str
    calls: int
    rows: int
    nanos: int
    at_ms: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class UsageRow(msgspec.Struct, frozen=True):
    """What one key used of one version of one model."""

    tenant: str
    key: str
    model: str
    version: int
    calls: int
    rows: int
    nanos: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


_ROW = "(" + ", ".join("?" * 13) + ")"
_ROWS_PER_STATEMENT = 1000
STATEMENTS_REMEMBERED = 128
"""As many as sqlite3 keeps prepared."""


def book(connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Write `rows` (in `ChargeRow`'s order) in one transaction, durable on return; an id that stands already is kept.

    One statement, which is its own transaction: a thread that comes back from SQLite waits for the interpreter lock,
    and beside a busy loop each wait is milliseconds. Three waits (begin, insert, commit) cost three times as much.
    """
    if len(rows) <= _ROWS_PER_STATEMENT:
        _insert(connection, rows)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for start in range(0, len(rows), _ROWS_PER_STATEMENT):
            _insert(connection, rows[start : start + _ROWS_PER_STATEMENT])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    connection.execute(_insertion(len(rows)), list(chain.from_iterable(rows)))


@lru_cache(STATEMENTS_REMEMBERED)
def _insertion(rows: int) -> str:
    return "INSERT OR IGNORE INTO charges VALUES " + ", ".join([_ROW] * rows)  # noqa: S608 - question marks alone


def usage(connection: sqlite3.Connection, tenant: str | None = None, since_ms: int = 0) -> list[UsageRow]:
    """Sums by tenant, key and model of what was booked at or after `since_ms`."""
    found = connection.execute(
        "SELECT tenant, key, model, version, SUM(calls), SUM(rows),"
        " SUM(nanos / 1000000000), SUM(nanos % 1000000000), SUM(prompt_tokens), SUM(completion_tokens),"
        " SUM(cached_tokens) FROM charges"
        " WHERE at >= ?1 AND (?2 IS NULL OR tenant = ?2)"
        " GROUP BY tenant, key, model, version ORDER BY tenant, key, model, version",
        (since_ms, tenant),
    )
    # Units and the rest apart: one sum of nano-units could run over 64 bits.
    return [
        UsageRow(row[0], row[1], row[2], row[3], row[4], row[5], row[6] * 10**9 + row[7], *row[8:]) for row in found
    ]


def charges(connection: sqlite3.Connection, request_id: str) -> list[ChargeRow]:
    """What was booked under the caller's request id."""
    found = connection.execute(
        "SELECT id, tenant, key, model, version, request_id, calls, rows, nanos, at, prompt_tokens,"
        " completion_tokens, cached_tokens FROM charges WHERE request_id = ?",
        (request_id,),
    )
    return [ChargeRow(*row) for row in found]


def total(connection: sqlite3.Connection) -> tuple[int, int]:
    """(calls, nano-units) of everything ever booked."""
    row = connection.execute(
        "SELECT COALESCE(SUM(calls), 0), COALESCE(SUM(nanos / 1000000000), 0), COALESCE(SUM(nanos % 1000000000), 0)"
        " FROM charges"
    ).fetchone()
    return row[0], row[1] * 10**9 + row[2]
