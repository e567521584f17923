"""`Identity`: credential in, caller out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes import CALLER, KEY, FakeIdentity
from tidemill.account.keys import Keys, Open, make
from tidemill.core.contracts import Identity
from tidemill.core.errors import InvalidKey, MissingKey, RevokedKey
from tidemill.core.request import ANONYMOUS, Caller
from tidemill.store import accounts, database

Known = tuple[Identity, str, Caller, Callable[[], None]]
"""An identity, a credential that it knows, whose that is, and what revokes it."""


def _keys(connection: sqlite3.Connection) -> Known:
    made = make()
    accounts.add_key(connection, made.id, made.digest, "acme", "", True)
    keys = Keys(lambda: accounts.epoch(connection), lambda: accounts.all_keys(connection))

    def revoke() -> None:
        accounts.revoke_key(connection, made.id)
        keys.refresh()

    return keys, made.key, Caller("acme", made.id, True), revoke


def _fake(connection: sqlite3.Connection) -> Known:
    fake = FakeIdentity()
    return fake, KEY, CALLER, lambda: fake.revoked.add(CALLER.key)


ASKING: dict[str, Callable[[sqlite3.Connection], Known]] = {
    "keys": _keys,
    "fake": _fake,
}


@pytest.fixture(params=ASKING)
def known(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Known]:
    with closing(database.connect(tmp_path)) as connection:
        yield ASKING[request.param](connection)


def test_credential_that_is_known_gives_its_caller(known: Known) -> None:
    identity, credential, caller, _ = known
    assert identity.recognise(credential) == caller
    identity.check(caller)


def test_key_that_is_revoked_is_refused_and_so_is_what_goes_on_in_its_name(known: Known) -> None:
    identity, credential, caller, revoke = known
    revoke()
    with pytest.raises(RevokedKey):
        identity.recognise(credential)
    with pytest.raises(RevokedKey):
        identity.check(caller)


def test_no_credential_is_told_apart(known: Known) -> None:
    with pytest.raises(MissingKey):
        known[0].recognise("")


def test_any_other_is_refused_and_not_repeated(known: Known) -> None:
    identity, credential, *_ = known
    near = [credential[:-1], credential + "x", " " + credential, credential.upper(), credential + "\0", credential[1:]]
    for wrong in [*near, "x", "é", "\udcff", "\ud800", "x" * 100_000, "%s{0}", "' OR 1=1 --"]:
        with pytest.raises(InvalidKey) as caught:
            identity.recognise(wrong)
        assert wrong == "x" or wrong not in caught.value.message


@pytest.mark.parametrize("credential", ["", "anything", "\ud800"])
def test_open_service_asks_for_none(credential: str) -> None:
    assert Open().recognise(credential) == ANONYMOUS
    Open().check(ANONYMOUS)
