from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tidemill.core.errors import InvalidSetting
from tidemill.store import accounts, database, ledger


def test_folder_and_file_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with closing(database.connect(folder)) as connection:
        accounts.add_key(connection, "1", b"d", "t", "", False)
        assert folder.stat().st_mode & 0o077 == 0
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file


def test_commit_survives_a_power_cut_and_readers_do_not_wait(tmp_path: Path) -> None:
    with closing(database.connect(tmp_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    with closing(database.connect(tmp_path)) as connection:
        accounts.add_key(connection, "1", b"d", "t", "", False)
    with closing(database.connect(tmp_path)) as connection:
        assert [key.id for key in accounts.all_keys(connection)] == ["1"]


def test_older_database_is_brought_up_to_date_and_keeps_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = database.MIGRATIONS
    monkeypatch.setattr(database, "MIGRATIONS", everything[:1])
    with closing(database.connect(tmp_path)) as connection:
        accounts.add_key(connection, "1", b"d", "t", "", False)
    monkeypatch.setattr(database, "MIGRATIONS", everything)
    with closing(database.connect(tmp_path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(everything),)
        assert len(accounts.all_keys(connection)) == 1


def test_charges_of_before_there_were_tokens_stay_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = database.MIGRATIONS
    monkeypatch.setattr(database, "MIGRATIONS", everything[:2])
    with closing(database.connect(tmp_path)) as connection:
        connection.execute("INSERT INTO charges VALUES ('c', 't', 'k', 'm', 1, 'r', 1, 2, 3, 1000)")
    monkeypatch.setattr(database, "MIGRATIONS", everything)
    with closing(database.connect(tmp_path)) as connection:
        (old,) = ledger.charges(connection, "r")
        assert old == ledger.ChargeRow("c", "t", "k", "m", 1, "r", 1, 2, 3, 1000)
        assert (old.prompt_tokens, old.completion_tokens, old.cached_tokens) == (0, 0, 0)
        assert ledger.total(connection) == (1, 3)


def test_migration_that_fails_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        connection.execute("no sql")

    whole = database.MIGRATIONS
    monkeypatch.setattr(database, "MIGRATIONS", (*whole, broken))
    with pytest.raises(InvalidSetting, match="no"):
        database.connect(tmp_path)
    monkeypatch.setattr(database, "MIGRATIONS", whole)
    with closing(database.connect(tmp_path)) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone() is None


def test_database_of_a_newer_tidemill_is_left_alone(tmp_path: Path) -> None:
    with closing(database.connect(tmp_path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(InvalidSetting, match="newer Tidemill"):
        database.connect(tmp_path)


def test_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / database.FILE_NAME).write_bytes(b"hello" * 1000)
    with pytest.raises(InvalidSetting, match="--data-dir"):
        database.connect(tmp_path)
    assert (tmp_path / database.FILE_NAME).read_bytes() == b"hello" * 1000


def test_place_that_cannot_be_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidSetting, match="--data-dir"):
            database.connect(place)


def test_two_that_open_a_new_database_at_once_both_succeed(tmp_path: Path) -> None:
    """The command line makes a key while the service starts."""
    many = 6
    for number in range(3):
        together = threading.Barrier(many)

        def connect(folder: Path, barrier: threading.Barrier = together) -> int:
            barrier.wait(10)
            with closing(database.connect(folder)) as connection:
                return int(connection.execute("PRAGMA user_version").fetchone()[0])

        with ThreadPoolExecutor(many) as pool:
            assert set(pool.map(connect, [tmp_path / str(number)] * many)) == {len(database.MIGRATIONS)}
