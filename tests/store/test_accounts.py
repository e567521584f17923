from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tidemill.store import accounts, database


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database.connect(tmp_path)) as made:
        yield made


def test_key_is_kept_as_it_was_given(connection: sqlite3.Connection) -> None:
    accounts.add_key(connection, "id1", b"\0\xffdigest", "acme'; DROP TABLE keys; --", "ünïcode", True)
    (record,) = accounts.all_keys(connection)
    assert (record.id, record.digest, record.tenant) == ("id1", b"\0\xffdigest", "acme'; DROP TABLE keys; --")
    assert (record.label, record.admin, record.revoked_at) == ("ünïcode", True, None)


@pytest.mark.parametrize(("key_id", "digest"), [("id1", b"other"), ("id2", b"d")])
def test_no_two_keys_share_id_or_digest(connection: sqlite3.Connection, key_id: str, digest: bytes) -> None:
    accounts.add_key(connection, "id1", b"d", "t", "", False)
    with pytest.raises(sqlite3.IntegrityError):
        accounts.add_key(connection, key_id, digest, "t", "", False)


def test_revoking_again_keeps_the_first_time(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts.add_key(connection, "id1", b"d", "t", "", False)
    for now in (100.0, 200.0):
        monkeypatch.setattr(accounts.time, "time", lambda now=now: now)
        assert accounts.revoke_key(connection, "id1")
    assert accounts.all_keys(connection)[0].revoked_at == 100


def test_revoking_touches_no_other_key_and_tells_when_there_is_none(connection: sqlite3.Connection) -> None:
    accounts.add_key(connection, "id1", b"1", "t", "", False)
    accounts.add_key(connection, "id2", b"2", "t", "", False)
    assert not accounts.revoke_key(connection, "id%")
    assert not accounts.revoke_key(connection, "")
    assert accounts.revoke_key(connection, "id2")
    assert [key.revoked_at is None for key in accounts.all_keys(connection)] == [True, False]


def test_epoch_moves_with_each_change_and_with_nothing_else(connection: sqlite3.Connection, tmp_path: Path) -> None:
    seen = [accounts.epoch(connection)]
    with closing(database.connect(tmp_path)) as other:
        accounts.add_key(other, "id1", b"1", "t", "", False)
        seen.append(accounts.epoch(connection))
        accounts.revoke_key(other, "id1")
        seen.append(accounts.epoch(connection))
        accounts.revoke_key(other, "id1")
        accounts.revoke_key(other, "gone")
        accounts.all_keys(other)
    assert accounts.epoch(connection) == seen[-1]
    assert len(set(seen)) == 3
