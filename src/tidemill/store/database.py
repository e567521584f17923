"""Opens the SQLite database and brings it up to date; used by the owner process and by the command line.

WAL, so that readers never wait for the writer; synchronous=FULL, so that a committed row survives a power cut.
Migrations are numbered functions, appended, never edited.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tidemill.core.errors import InvalidSetting

Connection = sqlite3.Connection
DatabaseError = sqlite3.Error

FILE_NAME = "tidemill.db"
BUSY_TIMEOUT_S = 10.0
WAL_TRIES = 100
WAL_PAUSE_S = 0.02


def connect(folder: Path, patience_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection to the database in `folder`, made and migrated when needed; the caller closes it.

    Autocommit: transactions are written out. One thread at a time may use it; a statement waits `patience_s` for
    another process that writes. Raises `InvalidSetting`.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made with its rights here, and only made: to open and close a database that this process holds already would
        # drop its locks (POSIX: a process's locks on a file go with the first descriptor it closes).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _into_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection)
            connection.execute(f"PRAGMA busy_timeout = {int(patience_s * 1000)}")
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise InvalidSetting(f"the database {path} cannot be used: {error}; choose another --data-dir") from error
    return connection


def _into_wal(connection: sqlite3.Connection) -> None:
    """Two that make the change at once are told "locked" without the busy time-out being asked: try again."""
    for patience in range(WAL_TRIES - 1, -1, -1):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if not patience:
                raise
            time.sleep(WAL_PAUSE_S)


def _migrate(connection: sqlite3.Connection) -> None:
    done = connection.execute("PRAGMA user_version").fetchone()[0]
    if done > len(MIGRATIONS):
        raise sqlite3.DatabaseError(f"it was written by a newer Tidemill (schema {done}, known {len(MIGRATIONS)})")
    while done < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            done = connection.execute("PRAGMA user_version").fetchone()[0]  # another process may have been faster
            if done < len(MIGRATIONS):
                MIGRATIONS[done](connection)
                done += 1
                connection.execute(f"PRAGMA user_version = {done}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _m1_keys(connection: sqlite3.Connection) -> None:
    """Bearer keys: the SHA-256 of the secret, never the secret. `epoch` moves with each change of a key."""
    connection.execute(
        "CREATE TABLE keys (id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL,"
        " label TEXT NOT NULL, admin INTEGER NOT NULL, created_at INTEGER NOT NULL, revoked_at INTEGER)"
    )
    connection.execute("CREATE TABLE epoch (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL)")
    connection.execute("INSERT INTO epoch VALUES (1, 0)")
    for event in ("INSERT", "UPDATE", "DELETE"):
        connection.execute(
            f"CREATE TRIGGER keys_{event.lower()} AFTER {event} ON keys"  # noqa: S608 - three words of ours
            " BEGIN UPDATE epoch SET value = value + 1; END"
        )


def _m2_charges(connection: sqlite3.Connection) -> None:
    """One row for each answered request. `id` names the request for ever; `at` is in milliseconds since 1970."""
    connection.execute(
        "CREATE TABLE charges (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,"
        " version INTEGER NOT NULL, request_id TEXT NOT NULL, calls INTEGER NOT NULL, rows INTEGER NOT NULL,"
        " nanos INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID"
    )


def _m3_tokens(connection: sqlite3.Connection) -> None:
    """The tokens of a charge; those booked before had none."""
    for column in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        connection.execute(f"ALTER TABLE charges ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


def _m4_batches(connection: sqlite3.Connection) -> None:
    """Files of tenants, whose content lies beside the database, and batches; `told` is the whole `BatchRow` as JSON."""
    connection.execute(
        "CREATE TABLE files (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL,"
        " bytes INTEGER NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX files_of_tenant ON files (tenant, id)")
    connection.execute(
        "CREATE TABLE batches (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, input_file TEXT NOT NULL,"
        " ended INTEGER NOT NULL, told BLOB NOT NULL) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX batches_of_tenant ON batches (tenant, id)")
    connection.execute("CREATE INDEX batches_unfinished ON batches (ended) WHERE NOT ended")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_m1_keys, _m2_charges, _m3_tokens, _m4_batches)
