"""Files that callers sent, and the batches made of them, in the database; used by the owner process.

What a file holds lies on disk (`doors/openai/batch/shelf.py`); times are seconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec


class FileRow(msgspec.Struct, frozen=True, array_like=True):
    """A file that is whole on disk under its id. `name` is what the caller calls it."""

    id: str
    tenant: str
    name: str
    purpose: str
    size_bytes: int
    created_at: int


class BatchRow(msgspec.Struct, frozen=True):
    """A batch as it is kept. `times` tells when it came into each state. `failure` is why it could not begin.

    `key` is the one that asked for it, and is charged. `completed` and `failed` count lines, and are true once the
    batch has ended; until then its output files tell. Those are named from the beginning, and are files of the tenant
    when it has ended: `output_file` and `error_file` are "" where there was nothing to write.
    """

    id: str
    tenant: str
    key: str
    endpoint: str
    input_file: str
    window: str
    expires_at: int
    state: str
    times: dict[str, int]
    metadata: dict[str, str]
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file: str = ""
    error_file: str = ""
    failure: dict[str, str] | None = None


ENDED = ("completed", "failed", "expired", "cancelled")
_FILE = "SELECT id, tenant, name, purpose, bytes, created_at FROM files"


def add_file(connection: sqlite3.Connection, row: FileRow, files_max: int, bytes_max: int) -> bool:
    """Whether the tenant may have it beside its others."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        count, size_bytes = file_totals(connection, row.tenant)
        allowed = count < files_max and size_bytes + row.size_bytes <= bytes_max
        if allowed:
            _insert_file(connection, row)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return allowed


def file_totals(connection: sqlite3.Connection, tenant: str) -> tuple[int, int]:
    """(files, their bytes)."""
    row = connection.execute("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM files WHERE tenant = ?", (tenant,))
    count, size_bytes = row.fetchone()
    return count, size_bytes


def find_file(connection: sqlite3.Connection, tenant: str, file_id: str) -> FileRow | None:
    row = connection.execute(f"{_FILE} WHERE id = ? AND tenant = ?", (file_id, tenant)).fetchone()
    return None if row is None else FileRow(*row)


def files(
    connection: sqlite3.Connection, tenant: str, purpose: str, after: str, limit: int, newest_first: bool
) -> list[FileRow]:
    """`purpose` and `after` (an id) are "" for all."""
    beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
    found = connection.execute(
        f"{_FILE} WHERE tenant = ?1 AND (?2 = '' OR purpose = ?2) AND (?3 = '' OR id {beyond} ?3)"
        f" ORDER BY id {order} LIMIT ?4",
        (tenant, purpose, after, limit),
    )
    return [FileRow(*row) for row in found]


def file_ids(connection: sqlite3.Connection) -> set[str]:
    """Those of every tenant."""
    return {row[0] for row in connection.execute("SELECT id FROM files")}


def remove_file(connection: sqlite3.Connection, tenant: str, file_id: str) -> str:
    """Forget it; the id of a batch that still reads it, and then it stays, else ""."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        used = connection.execute("SELECT id FROM batches WHERE input_file = ? AND NOT ended LIMIT 1", (file_id,))
        reader = used.fetchone()
        if reader is None:
            connection.execute("DELETE FROM files WHERE id = ? AND tenant = ?", (file_id, tenant))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return reader[0] if reader else ""


def add_batch(connection: sqlite3.Connection, row: BatchRow, unfinished_max: int) -> bool:
    """Whether the tenant may have one more that has not ended, and the input is still there."""
    cursor = connection.execute(
        "INSERT INTO batches (id, tenant, input_file, ended, told) SELECT ?1, ?2, ?3, 0, ?4"
        " WHERE EXISTS (SELECT 1 FROM files WHERE id = ?3 AND tenant = ?2)"
        " AND (SELECT COUNT(*) FROM batches WHERE tenant = ?2 AND NOT ended) < ?5",
        (row.id, row.tenant, row.input_file, msgspec.json.encode(row), unfinished_max),
    )
    return cursor.rowcount == 1


def save_batch(connection: sqlite3.Connection, row: BatchRow, written: Sequence[FileRow] = ()) -> None:
    """The batch as it is now and the files that it wrote, in one transaction, durable on return."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "UPDATE batches SET ended = ?, told = ? WHERE id = ?",
            (int(row.state in ENDED), msgspec.json.encode(row), row.id),
        )
        for each in written:
            _insert_file(connection, each)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def find_batch(connection: sqlite3.Connection, tenant: str, batch_id: str) -> BatchRow | None:
    row = connection.execute("SELECT told FROM batches WHERE id = ? AND tenant = ?", (batch_id, tenant)).fetchone()
    return None if row is None else _told(row)


def batches(connection: sqlite3.Connection, tenant: str | None, after: str, limit: int) -> list[BatchRow]:
    """Newest first; `after` is an id, "" for the newest; of every tenant where it is None."""
    found = connection.execute(
        "SELECT told FROM batches WHERE (?1 IS NULL OR tenant = ?1) AND (?2 = '' OR id < ?2) ORDER BY id DESC LIMIT ?3",
        (tenant, after, limit),
    )
    return [_told(row) for row in found]


def unfinished(connection: sqlite3.Connection) -> list[BatchRow]:
    """Of every tenant, oldest first."""
    return [_told(row) for row in connection.execute("SELECT told FROM batches WHERE NOT ended ORDER BY id")]


def _told(row: tuple[bytes]) -> BatchRow:
    return msgspec.json.decode(row[0], type=BatchRow)


def _insert_file(connection: sqlite3.Connection, row: FileRow) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
        (row.id, row.tenant, row.name, row.purpose, row.size_bytes, row.created_at),
    )
