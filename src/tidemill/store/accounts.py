"""Keys in the database; used by the owner process and by the command line."""

from __future__ import annotations

import sqlite3
import time

import msgspec


class KeyRecord(msgspec.Struct, frozen=True):
    """A key as it is kept. `digest` is the SHA-256 of its secret; times are seconds since 1970."""

    id: str
    digest: bytes
    tenant: str
    label: str
    admin: bool
    created_at: int
    revoked_at: int | None


def add_key(connection: sqlite3.Connection, key_id: str, digest: bytes, tenant: str, label: str, admin: bool) -> None:
    connection.execute(
        "INSERT INTO keys (id, digest, tenant, label, admin, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (key_id, digest, tenant, label, int(admin), int(time.time())),
    )


def revoke_key(connection: sqlite3.Connection, key_id: str) -> bool:
    """Whether there is such a key; revoking it again changes nothing."""
    connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (int(time.time()), key_id))
    return connection.execute("SELECT 1 FROM keys WHERE id = ?", (key_id,)).fetchone() is not None


def suspend_key(connection: sqlite3.Connection, key_id: str, label: str) -> None:
    """Revoke a key for as long as `resume_key` is not called; `label` takes its label's place."""
    connection.execute(
        "UPDATE keys SET revoked_at = ?, label = ? WHERE id = ? AND revoked_at IS NULL",
        (int(time.time()), label, key_id),
    )


def resume_key(connection: sqlite3.Connection, key_id: str, label: str) -> None:
    connection.execute("UPDATE keys SET revoked_at = NULL, label = ? WHERE id = ?", (label, key_id))


def all_keys(connection: sqlite3.Connection) -> list[KeyRecord]:
    """Every key, revoked ones included, oldest first."""
    found = connection.execute(
        "SELECT id, digest, tenant, label, admin, created_at, revoked_at FROM keys ORDER BY created_at, id"
    )
    return [KeyRecord(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6]) for row in found]


def epoch(connection: sqlite3.Connection) -> int:
    """A number that has moved when any key has changed, whichever process changed it."""
    return int(connection.execute("SELECT value FROM epoch").fetchone()[0])
