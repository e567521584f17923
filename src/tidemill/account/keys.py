"""Bearer keys: made once, shown once, kept as SHA-256; recognised in the owner process."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from hashlib import sha256

import msgspec

from tidemill.core.errors import InvalidKey, InvalidSetting, MissingKey, RevokedKey
from tidemill.core.request import ANONYMOUS, Caller
from tidemill.store.accounts import KeyRecord

KEY_PREFIX = "tm-"
SECRET_BYTES = 32
NAME_CHARACTERS_MAX = 128
LOOK_EACH_S = 0.1
LOOKS_AT_ONCE = 20
"""Unknown keys make the database be asked so often, and so many times in a row after a pause."""


class NewKey(msgspec.Struct, frozen=True):
    """A key just made. `key` is its only appearance in the clear."""

    id: str
    key: str
    digest: bytes


def make() -> NewKey:
    """A fresh random key of 256 bits."""
    key = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    digest = sha256(key.encode()).digest()
    return NewKey(id=secrets.token_hex(6), key=key, digest=digest)


def checked_name(what: str, name: str) -> str:
    """`name` for a tenant or a key. Raises `InvalidSetting`."""
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise InvalidSetting(f"{what} {name!r}: expected 1 to {NAME_CHARACTERS_MAX} printable characters")
    return name


class Keys:
    """`Identity` over the keys of the database, all of them held in memory.

    `refresh` is called on the service's loop when a key may have changed; a key revoked by another process is refused
    from then on.
    """

    def __init__(self, read_epoch: Callable[[], int], read_keys: Callable[[], list[KeyRecord]]) -> None:
        self._read_epoch = read_epoch
        self._read_keys = read_keys
        self._epoch = -1
        self._looks_until = 0.0
        self._records: dict[bytes, tuple[KeyRecord, Caller]] = {}
        self._revoked: set[str] = set()
        self.refresh()

    def refresh(self) -> bool:
        """Read the keys again when one has changed; costs one small query when none has. Whether one has."""
        epoch = self._read_epoch()
        changed = epoch != self._epoch
        if changed:
            self._records = {
                record.digest: (record, Caller(record.tenant, record.id, record.admin)) for record in self._read_keys()
            }
            self._revoked = {record.id for record, _ in self._records.values() if record.revoked_at is not None}
            self._epoch = epoch
        return changed

    def recognise(self, credential: str) -> Caller:
        if not credential:
            raise MissingKey("no key: send it as `Authorization: Bearer KEY`; `tidemill keys create` makes one")
        digest = sha256(credential.encode("utf-8", "surrogatepass")).digest()
        found = self._records.get(digest)
        if found is None and self._may_look():
            self.refresh()  # it may have been made a moment ago, by another process
            found = self._records.get(digest)
        if found is None or not hmac.compare_digest(found[0].digest, digest):
            raise InvalidKey("this key is not known here; `tidemill keys create` makes one")
        record, caller = found
        if record.revoked_at is not None:
            raise _revoked(record.id)
        return caller

    def check(self, caller: Caller) -> None:
        if caller.key in self._revoked:
            raise _revoked(caller.key)

    def _may_look(self) -> bool:
        """A generic cell rate: each look is paid for by `LOOK_EACH_S`, and as many may be owed as come at once."""
        now = time.monotonic()
        until = max(self._looks_until, now) + LOOK_EACH_S
        if until - now > LOOKS_AT_ONCE * LOOK_EACH_S:
            return False
        self._looks_until = until
        return True


def _revoked(key_id: str) -> RevokedKey:
    return RevokedKey(f"key {key_id} was revoked; ask its owner for another")


class Open:
    """`Identity` that asks for no key (`--no-auth`)."""

    def refresh(self) -> bool:
        return False

    def recognise(self, credential: str) -> Caller:
        return ANONYMOUS

    def check(self, caller: Caller) -> None:
        return
