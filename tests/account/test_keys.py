from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tidemill.account.keys import Keys, checked_name, make
from tidemill.core.errors import InvalidKey, InvalidSetting, RevokedKey
from tidemill.store import accounts, database


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    with closing(database.connect(tmp_path)) as connection:
        yield Keys(lambda: accounts.epoch(connection), lambda: accounts.all_keys(connection))


def add(folder: Path, tenant: str = "acme") -> tuple[str, str]:
    """Made by another process: (id, key)."""
    with closing(database.connect(folder)) as connection:
        made = make()
        accounts.add_key(connection, made.id, made.digest, tenant, "", False)
        return made.id, made.key


def test_key_of_another_process_is_known_at_once_even_right_after_a_refresh(keys: Keys, tmp_path: Path) -> None:
    keys.refresh()
    key_id, key = add(tmp_path)
    assert (keys.recognise(key).tenant, keys.recognise(key).key, keys.recognise(key).admin) == ("acme", key_id, False)


def test_key_revoked_by_another_process_is_refused_after_a_refresh(keys: Keys, tmp_path: Path) -> None:
    key_id, key = add(tmp_path)
    _, other = add(tmp_path)
    keys.refresh()
    with closing(database.connect(tmp_path)) as connection:
        accounts.revoke_key(connection, key_id)
    keys.refresh()
    with pytest.raises(RevokedKey, match=key_id) as caught:
        keys.recognise(key)
    assert key not in caught.value.message
    keys.recognise(other)


def test_keys_are_read_again_only_when_one_has_changed() -> None:
    epoch, read = [0], []

    def all_keys() -> list[accounts.KeyRecord]:
        read.append(1)
        return []

    keys = Keys(lambda: epoch[0], all_keys)
    for _ in range(3):
        keys.refresh()
    assert len(read) == 1
    epoch[0] = 1
    keys.refresh()
    assert len(read) == 2


def test_a_flood_of_unknown_keys_asks_the_database_a_bounded_number_of_times() -> None:
    looks = []
    keys = Keys(lambda: looks.append(1) or 0, list)
    for number in range(1000):
        with pytest.raises(InvalidKey):
            keys.recognise(f"tm-{number}")
    assert 1 < len(looks) < 100


def test_nothing_of_a_secret_is_kept(keys: Keys, tmp_path: Path) -> None:
    _, key = add(tmp_path)
    keys.refresh()
    secret = key.removeprefix("tm-")
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert secret.encode() not in content
        assert secret[:12].encode() not in content
    assert secret not in repr(vars(keys))


def test_no_two_keys_are_alike() -> None:
    made = [make() for _ in range(200)]
    assert len({each.key for each in made}) == len({each.id for each in made}) == 200
    assert all(len(each.key) >= 43 and each.key.isascii() and each.id not in each.key for each in made)


@pytest.mark.parametrize("name", ["", "a" * 129, "a\n", "\x1b[31m", "a\u202eb", "\0", "\ud800"])
def test_name_that_cannot_be_printed_is_refused(name: str) -> None:
    with pytest.raises(InvalidSetting, match="tenant"):
        checked_name("tenant", name)
    assert checked_name("tenant", "ACME & Söhne") == "ACME & Söhne"
